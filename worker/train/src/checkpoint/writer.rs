//! Writes checkpoints while training goes on.
//!
//! The weights, moments and sums are copied at a step; a thread writes the copy. One is written at a time, which bounds
//! the memory to one copy: the next waits for it, but never so long that the other ranks lose patience.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use squad_model::{Network, save};
use squad_weights::Tensors;

use super::files::{sync, tidy};
use super::state::TrainingState;
use super::transfer::Received;
use super::{
    MANIFEST, Manifest, folder_of, list, name_of, replace_folder, write_json, write_model_files,
    write_tensors,
};
use crate::adamw::Moments;
use crate::error::TrainError;
use crate::report::Report;

/// The file of the optimizer's moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The file of [`TrainingState`].
pub const STATE: &str = "state.json";

/// Name of a stage's moment in [`OPTIMIZER`]; `which` is first or second.
pub(super) fn moment_name(stage: usize, which: &str) -> String {
    format!("stage.{stage:04}.{which}_moment")
}

/// A copy of everything that a checkpoint holds.
#[derive(Debug)]
pub struct Snapshot {
    config: Value,
    weights: Tensors,
    moments: Vec<Moments>,
    state: TrainingState,
}

impl Snapshot {
    /// Copies the state after a step.
    pub fn take(network: &Network, moments: Vec<Moments>, state: TrainingState) -> Self {
        Self { config: save::config_json(network), weights: save::named_weights(network), moments, state }
    }

    fn write(&self, place: &Place) -> Result<(), TrainError> {
        let target = folder_of(&place.output).join(name_of(self.state.step));
        replace_folder(&target, |folder| {
            write_model_files((&self.config, &self.weights), &place.model_folder, folder)?;
            write_moments(&self.moments, &folder.join(OPTIMIZER))?;
            write_json(&folder.join(STATE), &self.state)?;
            write_json(&folder.join(MANIFEST), &Manifest::of(folder, self.state.step)?)
        })?;
        // Newer ones than this are not touched: they belong to whoever wrote them.
        let kept: Vec<PathBuf> = list(&place.output)?.into_iter().filter(|p| *p <= target).collect();
        for old in kept.iter().take(kept.len().saturating_sub(place.keep)) {
            // What was to be written is written; one too many harms nobody, and the next writing tries again.
            fs::remove_dir_all(old).ok();
        }
        Ok(())
    }
}

fn write_moments(moments: &[Moments], path: &Path) -> Result<(), TrainError> {
    let all: Vec<(String, [i64; 1], &[f32])> = moments
        .iter()
        .enumerate()
        .flat_map(|(stage, both)| {
            [("first", &both.first), ("second", &both.second)]
                .map(|(which, values)| (moment_name(stage, which), [values.len() as i64], values.as_slice()))
        })
        .collect();
    let views = all.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), *values));
    write_tensors(path, views)
}

/// Where checkpoints go.
#[derive(Clone, Debug)]
pub struct Place {
    /// The output folder.
    pub output: PathBuf,
    /// Where the tokenizer's files are.
    pub model_folder: PathBuf,
    /// How many are kept.
    pub keep: usize,
    /// How long training waits for the one before to be written.
    pub wait: Duration,
}

/// How often a waiting rank looks whether a checkpoint is written. Fixed: it only paces looks.
const LOOK: Duration = Duration::from_millis(20);

/// Writes one checkpoint at a time on a thread of its own. Dropping it waits for the one that is being written.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    busy: Option<(u64, JoinHandle<Result<(), TrainError>>)>,
}

impl Writer {
    /// A writer with nothing to do yet. Makes the folder, and deletes what a killed writer left half-written there.
    ///
    /// # Errors
    /// When the folder cannot be made, or such a leftover cannot be deleted.
    pub fn new(place: Place) -> Result<Self, TrainError> {
        let folder = folder_of(&place.output);
        fs::create_dir_all(&folder).map_err(TrainError::output("create", &folder))?;
        sync(&place.output)?;
        tidy(&folder)?;
        Ok(Self { place, busy: None })
    }

    /// Begins to write a checkpoint, which is copied once the one before is written. That one's failure is a note: old
    /// checkpoints are whole, and this one may succeed. Where that one is still being written after
    /// [`Place::wait`], this one is left out, with a note, unless it is the `last`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn begin(
        &mut self,
        last: bool,
        snapshot: impl FnOnce() -> Snapshot,
        report: &dyn Report,
    ) -> Result<(), TrainError> {
        if !last && let Some(step) = self.late() {
            report.own_note(format!(
                "the checkpoint of step {step} is still being written: one is left out; raise \
                 train.checkpoint_every, or write to a faster disk"
            ));
            return Ok(());
        }
        self.forgive(report);
        let snapshot = snapshot();
        let place = self.place.clone();
        let step = snapshot.state.step;
        self.start(step, move || snapshot.write(&place))
    }

    /// Puts a checkpoint that came from another rank among this folder's, behind training.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn adopt(&mut self, step: u64, received: Received) -> Result<(), TrainError> {
        let output = self.place.output.clone();
        self.start(step, move || received.keep(&output))
    }

    fn start(
        &mut self,
        step: u64,
        work: impl FnOnce() -> Result<(), TrainError> + Send + 'static,
    ) -> Result<(), TrainError> {
        let thread = std::thread::Builder::new()
            .name("squad-checkpoint".into())
            .spawn(work)
            .map_err(|e| TrainError::Internal(format!("cannot start a thread for a checkpoint: {e}")))?;
        self.busy = Some((step, thread));
        Ok(())
    }

    /// Tells, if the writing of a checkpoint has just ended, how it went.
    pub fn poll(&mut self, report: &dyn Report) {
        if self.busy.as_ref().is_some_and(|(_, thread)| thread.is_finished()) {
            self.forgive(report);
        }
    }

    /// Waits until the last checkpoint is written.
    ///
    /// # Errors
    /// Why it is not.
    pub fn settle(&mut self) -> Result<(), TrainError> {
        let Some((_, thread)) = self.busy.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(TrainError::Internal("the checkpoint's thread panicked".into())))
    }

    /// Waits a while for the checkpoint that is being written; its step if it still is.
    fn late(&self) -> Option<u64> {
        let (step, thread) = self.busy.as_ref()?;
        let deadline = Instant::now() + self.place.wait;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return Some(*step);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    fn forgive(&mut self, report: &dyn Report) {
        let step = self.busy.as_ref().map_or(0, |(step, _)| *step);
        if let Err(error) = self.settle() {
            report.own_note(format!(
                "the checkpoint of step {step} could not be written: {error}; training goes on, older checkpoints are whole"
            ));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever leaves early has an error of its own to tell.
        self.settle().ok();
    }
}
