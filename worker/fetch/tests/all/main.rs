//! Fetching from a server on this machine that misbehaves as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod download;
mod layouts;
mod repository;
mod resolve;
mod server;
mod squad;
