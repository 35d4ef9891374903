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
//! Connections come in through `door`, which counts and encrypts them; `access` says who may do what, and `confine`
//! which folders jobs may name.
//!
//! `traces` makes spans of the same events, where somebody collects them.
//!
//! What users see in a browser, and what Prometheus reads, is served by `web`: it asks the registry and decides nothing.
#![forbid(unsafe_code)]

mod access;
mod certificate;
mod config;
mod confine;
mod delivery;
mod door;
mod driver;
mod grpc;
pub mod job;
mod launch;
mod limits;
mod logs;
mod metrics;
mod placement;
mod private_file;
mod registry;
mod serve;
mod state_lock;
mod store;
mod traces;
mod web;

pub use access::{Role, TokenError, TokenFile, TokenRow};
pub use certificate::{CertificateError, make_certificates};
pub use config::{Config, ConfigError, Reach, StoreLocation, find_worker_program};
pub use door::{Tls, TlsError};
pub use limits::Limits;
pub use private_file::{NotPrivate, check_private};
pub use serve::{ServeError, Server};
pub use traces::{TraceError, TraceTarget};
