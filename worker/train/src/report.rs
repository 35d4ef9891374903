//! Progress to whoever listens, and the wish to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use squad_proto::{Phase, Progress};

use crate::trace::Doing;

/// Hears what a run does. Nothing here prints: the worker's control thread decides what becomes of it.
pub trait Report: Send + Sync {
    /// A phase is this far; called at every step or batch, so it must be cheap.
    fn tick(&self, phase: Phase, done: u64, total: u64);
    /// The same with figures; called about twice a second at most, by rank 0.
    fn progress(&self, progress: Progress);
    /// Something worth a line in the log.
    fn note(&self, text: String);
    /// The same from a rank that says something of its own: of what all ranks say, only rank 0's is kept.
    fn own_note(&self, text: String) {
        self.note(text);
    }
    /// This rank begins to do this; called many times in a step, so it must cost next to nothing.
    fn doing(&self, _doing: Doing) {}
}

/// The wish to stop, as a value that is handed around: set from any thread, seen at the next step.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
