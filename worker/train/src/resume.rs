//! Going on from a checkpoint.

use std::path::Path;

use squad_model::Network;
use squad_proto::JobSpec;

use crate::adamw::Moments;
use crate::checkpoint::find::{self, Verified};
use crate::checkpoint::folder_of;
use crate::checkpoint::state::{TrainingState, difference, identity};
use crate::error::TrainError;
use crate::prepare::TrainSet;
use crate::report::Report;

/// Where a run goes on from; its weights are in the network already.
#[derive(Debug)]
pub struct Resumed {
    /// The checkpoint.
    pub checkpoint: Verified,
    /// What the log knew.
    pub state: TrainingState,
    /// What the optimizer knew.
    pub moments: Vec<Moments>,
}

/// The newest checkpoint of an output folder that is whole and can be gone on from. Says which were passed over.
///
/// # Errors
/// When the folder cannot be listed.
pub fn find(output: &Path, report: &dyn Report) -> Result<Option<Verified>, TrainError> {
    let (found, passed_over) = find::newest(output, find::resumable)?;
    for one in passed_over {
        report.note(one.to_string());
    }
    if found.is_none() {
        report.note(format!(
            "there is no checkpoint to go on from in {}: training starts afresh",
            folder_of(output).display()
        ));
    }
    Ok(found)
}

/// Reads what the log and the optimizer knew, after a look whether the run is the one that was begun.
///
/// # Errors
/// When it is another run, with the first field that differs, or the files cannot be read.
pub fn load(
    checkpoint: Verified,
    spec: &JobSpec,
    network: &Network,
    set: &TrainSet,
) -> Result<Resumed, TrainError> {
    let stages: Vec<usize> = network.stages().iter().map(squad_model::Stage::len).collect();
    let (state, moments) = find::read_state(&checkpoint, &stages)?;
    let refuse = |why: String| {
        TrainError::Resume(format!(
            "cannot go on from {}: {why}; set it back, or start afresh without --resume",
            checkpoint.folder.display()
        ))
    };
    if let Some(sentence) = difference(&state.run, &identity(spec, network, set)) {
        return Err(refuse(sentence));
    }
    let place = set.sampler.global_step(state.cursor) as u64;
    if place != state.step {
        return Err(refuse(format!(
            "its place in the data is step {place}, its weights' is step {}",
            state.step
        )));
    }
    Ok(Resumed { checkpoint, state, moments })
}

impl Resumed {
    /// What differs from the ranks that wrote the checkpoint, and what follows: nothing but rounding.
    pub fn rounding(&self, world: usize) -> Option<String> {
        let (then, now) = ((self.state.world, self.state.threads), (world, tch::get_num_threads()));
        (then != now).then(|| {
            format!(
                "{} ranks of {} threads wrote the checkpoint, {} of {} go on: losses will agree within rounding, not bit for bit",
                then.0, then.1, now.0, now.1
            )
        })
    }
}
