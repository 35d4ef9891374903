//! Portions that are made beside the steps: while one is computed, a thread makes the next ones.
//!
//! What a portion holds is a function of the step, so it makes no difference to the weights who makes it when. No more
//! than [`AHEAD`] wait to be computed. The thread ends with the last step, or when nobody takes its portions any more.

use std::sync::mpsc::{Receiver, RecvError, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::TrainError;
use crate::portion::{Collator, Portion, Portions};
use crate::prepare::TrainSet;

/// Portions that are ready and wait, at most; one more is being made.
pub const AHEAD: usize = 2;

/// The thread that makes portions.
#[derive(Debug)]
pub struct Prefetch<'scope> {
    portions: Receiver<Result<Portion, TrainError>>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Prefetch<'scope> {
    /// Starts making the portions of these steps, in this order. It must be dropped before the scope ends, which
    /// waits for the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        collator: Collator,
        set: &'env TrainSet,
        steps: impl Iterator<Item = u64> + Send + 'scope,
    ) -> Result<Self, TrainError> {
        let (to, portions) = sync_channel(AHEAD);
        let make = move || {
            for step in steps {
                let portion = collator.portion(set, step);
                let failed = portion.is_err();
                if to.send(portion).is_err() || failed {
                    // Nobody computes any more, or nothing can be.
                    return;
                }
            }
        };
        let thread = Builder::new().name("squad-collate".into()).spawn_scoped(scope, make);
        let thread =
            thread.map_err(|error| TrainError::Internal(format!("a thread for batches: {error}")))?;
        Ok(Self { portions, thread: Some(thread) })
    }
}

impl Portions for Prefetch<'_> {
    /// Waits for the thread, which waits for nothing but for being heard.
    fn portion(&mut self, step: u64) -> Result<Portion, TrainError> {
        match self.portions.recv() {
            Ok(Ok(portion)) if portion.step != step => Err(TrainError::Internal(format!(
                "the batches of step {} came in place of those of step {step}",
                portion.step
            ))),
            Ok(portion) => portion,
            Err(RecvError) => {
                if let Some(Err(panic)) = self.thread.take().map(ScopedJoinHandle::join) {
                    // As if it had happened here, where it is caught and told.
                    std::panic::resume_unwind(panic);
                }
                Err(TrainError::Internal(format!("there are no batches for step {step}")))
            }
        }
    }
}
