//! The whole service with real processes: `examples/fake_worker.rs` in the worker's place.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a test that fails")]

mod access;
mod cancel;
mod daemon;
mod delivery;
mod doors;
mod fence;
mod harness;
mod history;
mod outcomes;
mod queue;
mod refusals;
mod tls;
mod traces;
mod web;
