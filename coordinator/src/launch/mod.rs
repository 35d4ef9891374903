//! Starting worker processes.
//!
//! A launcher only starts and kills; the worker itself says when it is there, and its end arrives as an
//! event. The pipe to its standard input carries the ticket and stays open: when this process dies, however
//! it dies, the worker sees the end.

mod external;
mod identity;
mod lines;
mod local;

use std::collections::BTreeMap;

pub(crate) use external::{Attendant, Attendants, ended};
pub(crate) use identity::Identity;
pub(crate) use lines::Sink;
pub(crate) use local::{Launched, LocalLauncher};

/// A worker's process on this machine.
pub(crate) enum Process {
    /// This coordinator started it.
    Launched(Launched),
    /// An earlier one did.
    Left(Identity),
}

impl Process {
    /// Signals the process's whole group.
    pub(crate) fn kill(&self, hard: bool) {
        match self {
            Self::Launched(launched) => launched.kill(hard),
            Self::Left(identity) => identity.kill(hard),
        }
    }
}

/// How a job's workers come to run.
pub(crate) enum Launching {
    /// As processes of this machine.
    Local {
        /// Starts them.
        launcher: LocalLauncher,
        /// Those that run, by slot.
        running: BTreeMap<u32, Process>,
    },
    /// Something else placed their attendants.
    External(Attendants),
}

impl Launching {
    /// Workers here.
    pub(crate) fn local(launcher: LocalLauncher) -> Self {
        Self::Local { launcher, running: BTreeMap::new() }
    }
}
