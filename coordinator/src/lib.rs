//! Rendezvous, supervision and record of training jobs.
//!
//! The job is a pure state machine ([`job`]): events and the time go in, actions come out. Everything that
//! touches the world (processes, gRPC, clocks, SQLite) is at the rim and decides nothing.
//!
//! ```text
//! grpc/jobs ─► registry ─► driver (one task a job) ─► job::Machine ─► actions ─► launch, sessions, store
//!                              ▲                                                       │
//!                              └───────── events: grpc/workers, launch ◄───────────────┘
//! ```
//! What users see in a browser, and what Prometheus reads, is served by `web`: it asks the registry and decides nothing.
#![forbid(unsafe_code)]

mod config;
mod driver;
mod grpc;
pub mod job;
mod launch;
mod logs;
mod metrics;
mod registry;
mod serve;
mod state_lock;
mod store;
mod web;

pub use config::{Config, ConfigError, StoreLocation, find_worker_program};
pub use serve::{ServeError, Server};
