//! The words that every part of Squadron speaks.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | jobs, generations, ranks, and the [`Fence`] that every message carries |
//! | [`spec`] | the job spec as a user writes it, its validation, its JSON Schema |
//! | [`task`] | what is to be done with a spec: train, or evaluate checkpoints |
//! | [`threads`] | threads of workers that share a machine, and what their environment says of them |
//! | [`event`] | what may happen to a job, in the past tense |
//! | [`failure`] | failure reports and their stable codes |
//! | [`deadlines`] | every wait, derived from one patience |
//! | [`memory_group`] | whether the kernel killed a process for want of memory |
//! | [`pace`] | how fast a phase goes, and how long it still takes |
//! | [`plan`], [`step_bench`] | what a job will need; how fast steps are: the worker's answers to squadctl |
//! | [`recipes`] | the replaced program's settings for each model, ready to run |
//! | [`nearest`] | what a mistyped name was most likely meant to be |
//! | [`ticket`] | what a worker is told at birth |
//! | `connect` | how a coordinator is reached, and how one shows who one is (feature `rpc`) |
//! | `wire` | domain types to protobuf and back (feature `rpc`) |
#![forbid(unsafe_code)]

#[cfg(feature = "rpc")]
pub mod connect;
pub mod deadlines;
pub mod event;
pub mod failure;
pub mod ids;
pub mod memory_group;
pub mod nearest;
pub mod outputs;
pub mod pace;
pub mod plan;
pub mod recipes;
pub mod spec;
pub mod step_bench;
pub mod task;
pub mod threads;
pub mod ticket;
#[cfg(feature = "rpc")]
pub mod wire;

/// Generated protobuf messages and gRPC services of `squad.v1`.
#[cfg(feature = "rpc")]
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod pb {
    tonic::include_proto!("squad.v1");
}

pub use deadlines::Deadlines;
pub use event::{Event, EventBody, JobState, Phase, Progress};
pub use failure::{FailureCode, FailureReport};
pub use ids::{Fence, Generation, JobId, Rank};
pub use memory_group::{MemoryGroup, OutOfMemory};
pub use pace::Pace;
pub use spec::{JobSpec, ValidSpec};
pub use task::Task;
pub use threads::threads_per_worker;
pub use ticket::{Invitation, Ticket};
