//! Going on from a checkpoint.

use std::path::Path;

use squad_collective::Background;
use squad_model::Network;
use squad_proto::{JobSpec, Task};

use crate::adamw::Moments;
use crate::checkpoint::find::{self, Verified};
use crate::checkpoint::state::{TrainingState, difference, identity};
use crate::checkpoint::transfer::{Received, pass_on};
use crate::error::TrainError;
use crate::evaluate::gather;
use crate::prepare::{self, Prepared, TrainSet};
use crate::report::Report;

/// Where all ranks go on from: the newest checkpoint that any of them holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its step.
    pub step: u64,
    /// Its [`identity`](crate::checkpoint::Manifest::identity).
    pub identity: String,
    /// The rank that gives it to those who do not hold it.
    pub holder: usize,
}

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

/// Sees to it that this rank goes on from where all do. What it does not hold comes from the rank that does: then
/// weights and state are read from there, and the files are given. All ranks call it at once.
///
/// # Errors
/// When the checkpoint cannot be sent, does not arrive whole, or is of another run.
pub fn agree(
    prepared: &mut Prepared,
    set: &TrainSet,
    (spec, task): (&JobSpec, &Task),
    collective: &Background,
    report: &dyn Report,
) -> Result<Option<Received>, TrainError> {
    let Some(origin) = prepared.origin.clone() else { return Ok(None) };
    let wants = prepared.held() != Some((origin.step, origin.identity.as_str()));
    if !gather(collective, &[wants])?.contains(&true) {
        return Ok(None);
    }
    let own = prepared.resumed.as_ref().map(|resumed| &resumed.checkpoint).filter(|_| !wants);
    let output = Path::new(&spec.output_dir);
    let received = pass_on((origin.holder, origin.step), own, wants, output, collective)?;
    let Some(received) = received else { return Ok(None) };
    let broken = |why: String| {
        TrainError::Resume(format!(
            "the checkpoint of step {} that rank {} sent did not arrive whole: {why}",
            origin.step, origin.holder
        ))
    };
    let checkpoint = find::verify(received.folder()).map_err(broken)?;
    if checkpoint.identity != origin.identity {
        return Err(broken("it is another one".into()));
    }
    let device = prepared.network.device();
    let network = prepare::load(device, spec, task, received.folder(), report)?;
    if network.layout_hash() != prepared.network.layout_hash() {
        return Err(broken("its parameters are laid out in another way".into()));
    }
    prepared.network = network;
    prepared.resumed = Some(load(checkpoint, spec, &prepared.network, set)?);
    Ok(Some(received))
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
