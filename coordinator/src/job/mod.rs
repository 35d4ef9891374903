//! The job as a pure state machine.
//!
//! ```text
//! Queued ─Start─► Starting ─all ready─► Running ─all completed, all gone─► Succeeded
//!    │ ▲           ▲  │                    │
//!    │ │           │  ├── a worker lost ───┤
//!    │ │           │  ▼                    │
//!    │ │   Restarting: all gone, wait      │
//!    │ │                                   │
//!    │ │              ├─ failure, cancel, ─┤
//!    │ │              │   the coordinator  │
//!    │ │              │      is ending     │
//!    ▼ │              ▼                    ▼
//! Cancelled       Stopping ────all processes gone────► Failed | Cancelled | Succeeded
//!      └──────────────┘ the coordinator is ending: another one goes on
//! ```
//! Every life between two restarts is a generation; what a worker of an older one says changes nothing.
//! A cancel that finds, or leaves, all workers completed ends in Succeeded: the results are there.
//!
//! What outlives a coordinator is the job's [`Memory`]. The next one recalls it; a job that was at work is taken up in
//! Restarting, and begins its next life when the workers of the one before are gone.
//!
//! [`Machine::step`] has no clock, no input or output, and no randomness. Time is a [`Duration`] since the
//! job was created.
//!
//! [`Duration`]: std::time::Duration

#[cfg(test)]
mod attended_tests;
mod blame;
mod endings;
mod event;
mod inputs;
mod late;
mod machine;
mod memory;
mod rendezvous;
mod restart;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod worker;

pub use event::{Action, Doing, Event, Exit, Input, Order};
pub use machine::Machine;
pub use memory::Memory;
pub use rendezvous::{Having, Held, Origin};
pub use worker::{RankStatus, Stage};
