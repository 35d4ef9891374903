//! Starting worker processes.
//!
//! A launcher only starts and kills; the worker itself says when it is there, and its end arrives as an
//! event. The pipe to its standard input carries the ticket and stays open: when this process dies, however
//! it dies, the worker sees the end.

mod external;
mod lines;
mod local;

use std::collections::BTreeMap;

pub(crate) use external::{Attendant, Attendants, ended};
pub(crate) use lines::Sink;
pub(crate) use local::{Launched, LocalLauncher};

/// How a job's workers come to run.
pub(crate) enum Launching {
    /// As processes of this machine.
    Local {
        /// Starts them.
        launcher: LocalLauncher,
        /// Those that run, by slot.
        running: BTreeMap<u32, Launched>,
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
