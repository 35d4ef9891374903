//! What the two threads tell each other.

use std::net::SocketAddr;

use squad_proto::{FailureReport, Progress};
use squad_train::Origin;
use squad_train::contents::Contents;
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
        /// What is to be evaluated, where that is the whole task.
        evaluated: String,
        /// Step and identity of the newest checkpoint that it holds.
        held: Option<(u64, String)>,
        /// What it read; nothing where there is nobody to compare it with.
        contents: Contents,
    },
    /// A phase went on.
    Progress(Progress),
    /// A line for people.
    Note(String),
    /// One that no other rank says.
    OwnNote(String),
    /// The task has ended.
    Finished(Result<Outcome, FailureReport>),
}

/// To the compute thread: all ranks are ready, and these are their ring addresses.
#[derive(Debug)]
pub(crate) struct Begin {
    /// In the order of ranks.
    pub(crate) peers: Vec<SocketAddr>,
    /// Where training goes on from.
    pub(crate) origin: Option<Origin>,
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
