//! What of a job outlives its coordinator.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use squad_proto::{FailureReport, Generation};

use super::restart::Restarts;

/// What a later coordinator must know of a job to go on with it. It is written down before the actions of the step that
/// changed it are performed, so that no generation is ever launched twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The newest life.
    pub(crate) generation: Generation,
    /// Its workers were launched.
    pub(crate) begun: bool,
    /// Some life has trained: the output folder is this job's.
    pub(crate) trained: bool,
    pub(crate) restarts: Restarts,
    /// Slots that are gone for good.
    pub(crate) dropped: BTreeSet<u32>,
    /// How the job will end once its workers are gone, where that is settled.
    pub(crate) ending: Option<Ending>,
}

/// How a job that is stopping will end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// At somebody's wish.
    Cancelled,
    /// By this failure.
    Failed(FailureReport),
}

impl Memory {
    /// Of a job that was never started.
    pub(crate) fn new(max_restarts: u32) -> Self {
        Self {
            generation: Generation::FIRST,
            begun: false,
            trained: false,
            restarts: Restarts::new(max_restarts),
            dropped: BTreeSet::new(),
            ending: None,
        }
    }
}
