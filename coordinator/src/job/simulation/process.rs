//! A worker's process.

use std::time::Duration;

use squad_proto::{Generation, Phase};

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It has not said hello yet.
    Starting,
    /// It said hello, and waits for its place.
    Joining,
    /// It loads weights and features.
    Loading,
    /// It is ready, and waits for the others.
    Ready,
    /// It may train.
    Training,
    /// It has taken its last step, and writes or takes leave.
    Ending,
    Gone,
}

/// A worker's process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) generation: Generation,
    pub(super) slot: u32,
    pub(super) rank: u32,
    pub(super) world: u32,
    pub(super) doing: Doing,
    /// It was asked to stop: its vote in the next step.
    pub(super) stop: bool,
    /// Stopped by SIGSTOP.
    pub(super) frozen: bool,
    /// Since when a step waits for another rank.
    pub(super) waits_since: Option<Duration>,
    /// The life of the coordinator that started it; no other one hears it.
    pub(super) coordinator: u64,
    /// Its session is open as far as it knows.
    pub(super) session: bool,
    pub(super) step: u64,
    /// The step of a checkpoint that it is writing.
    pub(super) writing: Option<u64>,
}

impl Process {
    pub(super) fn lives(&self) -> bool {
        self.doing != Doing::Gone
    }

    /// What it says of where it is.
    pub(super) fn position(&self) -> (Phase, u64) {
        match self.doing {
            Doing::Training | Doing::Ending => (Phase::Train, self.step),
            _ => (Phase::Prepare, 0),
        }
    }
}
