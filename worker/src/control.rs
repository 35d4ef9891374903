//! What the two threads tell each other.

use std::net::SocketAddr;

use squad_proto::{FailureReport, Progress};
use squad_train::run::Outcome;

/// From the compute thread.
#[derive(Debug)]
pub(crate) enum FromCompute {
    /// Weights and features are there; this is what all ranks must have alike.
    Ready {
        /// Hash of the parameters' layout, in hex.
        layout: String,
        /// Hash of the features, in hex.
        data: String,
        /// What training starts from: empty, or step and hash of a checkpoint.
        start: String,
    },
    /// A phase went on.
    Progress(Progress),
    /// A line for people.
    Note(String),
    /// The task has ended.
    Finished(Result<Outcome, FailureReport>),
}

/// To the compute thread: all ranks are ready, and these are their ring addresses.
#[derive(Debug)]
pub(crate) struct Begin {
    /// In the order of ranks.
    pub(crate) peers: Vec<SocketAddr>,
}

/// To the compute thread: who it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its rank.
    pub(crate) rank: u32,
    /// How many ranks there are.
    pub(crate) world: u32,
    /// Its number at its machine.
    pub(crate) local_rank: u32,
}
