//! The thread that issues NCCL's operations and watches over them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::api::{Api, Comm, Progress, UniqueId};
use super::device::{DeviceBuffer, Gpu, Mark, Stream};
use crate::{CollectiveError, Pending};

/// How often is looked while something is under way, and while nothing is. Fixed: they only pace looks.
const BUSY: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(50);

/// What the thread is told.
pub(super) enum Task {
    /// Sum this, once the caller's stream has come to `ready`.
    AllReduce { buffer: DeviceBuffer, ready: Mark, answer: Sender<Result<Issued, CollectiveError>> },
    /// Abort when this operation of the ring fails.
    Watch(Pending),
}

/// An operation that the GPU has been told of.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) began: Mark,
    pub(super) done: Mark,
}

/// What both threads see.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) aborted: Arc<AtomicBool>,
    broken: Mutex<Option<CollectiveError>>,
}

impl Shared {
    /// What broke the communicator, if anything did.
    pub(super) fn broken(&self) -> Option<CollectiveError> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn break_with(&self, error: &CollectiveError) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
    }
}

/// An operation whose end is awaited.
struct Flying {
    ready: Mark,
    done: Mark,
    /// Since when only the others are waited for.
    waiting_since: Option<Instant>,
}

/// What lives on the thread.
pub(super) struct Issuer {
    comm: Comm,
    stream: Stream,
    rank: usize,
    patience: Duration,
    shared: Arc<Shared>,
    flying: VecDeque<Flying>,
    watched: Vec<Pending>,
}

impl Issuer {
    /// Joins the other ranks; all do so at the same time.
    pub(super) fn join(
        (api, gpu): (&Arc<Api>, &Arc<Gpu>),
        id: UniqueId,
        (rank, world): (usize, usize),
        patience: Duration,
        shared: Arc<Shared>,
    ) -> Result<Self, CollectiveError> {
        let failed = |problem: String| CollectiveError::Nccl { rank, problem };
        gpu.make_current().map_err(failed)?;
        let stream = Stream::new(gpu).map_err(failed)?;
        let comm = Comm::join(api, id, rank, world).map_err(failed)?;
        let issuer =
            Self { comm, stream, rank, patience, shared, flying: VecDeque::new(), watched: Vec::new() };
        issuer.wait("joining")?;
        Ok(issuer)
    }

    fn failed(&self, problem: String) -> CollectiveError {
        CollectiveError::Nccl { rank: self.rank, problem }
    }

    /// Waits until NCCL has taken in the last call.
    fn wait(&self, what: &str) -> Result<(), CollectiveError> {
        wait(&self.comm, self.patience, &self.shared.aborted).map_err(|problem| match problem {
            Waited::Aborted => CollectiveError::Aborted { rank: self.rank },
            Waited::Failed(problem) => self.failed(problem),
            Waited::TooLong => self.failed(format!(
                "{what} did not end within {:.1?}: another rank did not come, or cannot be reached",
                self.patience
            )),
        })
    }

    /// Works until nobody can give it tasks any more.
    pub(super) fn serve(mut self, tasks: &Receiver<Task>) {
        loop {
            let idle = self.flying.is_empty() && self.watched.is_empty();
            match tasks.recv_timeout(if idle { IDLE } else { BUSY }) {
                Ok(Task::AllReduce { buffer, ready, answer }) => {
                    let outcome = self.issue(buffer, ready);
                    if let Err(error) = &outcome {
                        self.give_up(error);
                    }
                    // A caller that no longer waits has an error of its own.
                    answer.send(outcome).ok();
                }
                Ok(Task::Watch(pending)) => self.watched.push(pending),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.shared.broken().is_none()
                && let Err(error) = self.look()
            {
                self.give_up(&error);
            }
        }
        self.leave();
    }

    fn issue(&mut self, buffer: DeviceBuffer, ready: Mark) -> Result<Issued, CollectiveError> {
        if let Some(error) = self.shared.broken() {
            return Err(error);
        }
        let failed = |problem: String| CollectiveError::Nccl { rank: self.rank, problem };
        self.stream.wait_for(&ready).map_err(failed)?;
        let began = Mark::at_end_of(&self.stream).map_err(failed)?;
        if self.comm.all_reduce(buffer, &self.stream).map_err(failed)? == Progress::UnderWay {
            self.wait("an all-reduce")?;
        }
        let done = Mark::at_end_of(&self.stream).map_err(failed)?;
        self.flying.push_back(Flying { ready, done: done.clone(), waiting_since: None });
        Ok(Issued { began, done })
    }

    /// Looks for everything that can have gone wrong.
    fn look(&mut self) -> Result<(), CollectiveError> {
        if self.shared.aborted.load(Ordering::SeqCst) {
            return Err(CollectiveError::Aborted { rank: self.rank });
        }
        self.comm.progress().map_err(|problem| self.failed(problem))?;
        let mut lost = None;
        self.watched.retain(|pending| match pending.try_settle() {
            None => true,
            Some(settled) => {
                lost = lost.take().or_else(|| settled.and_then(|settled| settled.result).err());
                false
            }
        });
        if let Some(error) = lost {
            return Err(error);
        }
        while let Some(first) = self.flying.front_mut() {
            let failed = |problem: String| CollectiveError::Nccl { rank: self.rank, problem };
            if first.done.is_reached().map_err(failed)? {
                self.flying.pop_front();
                continue;
            }
            if first.waiting_since.is_none() && first.ready.is_reached().map_err(failed)? {
                first.waiting_since = Some(Instant::now());
            }
            if first.waiting_since.is_some_and(|since| since.elapsed() > self.patience) {
                return Err(failed(format!(
                    "an all-reduce did not end within {:.1?}: another rank is gone or stuck",
                    self.patience
                )));
            }
            break;
        }
        Ok(())
    }

    /// Remembers the error, then ends the kernels: whoever waited for them finds the error.
    fn give_up(&mut self, error: &CollectiveError) {
        self.shared.break_with(error);
        self.comm.abort();
        self.flying.clear();
        self.watched.clear();
    }

    fn leave(mut self) {
        let whole = self.shared.broken().is_none() && self.flying.is_empty();
        if whole && self.comm.finalize().is_ok() && self.wait("leaving").is_ok() {
            self.comm.destroy();
        } else {
            self.comm.abort();
        }
    }
}

/// Why a wait ended badly.
pub(super) enum Waited {
    Aborted,
    Failed(String),
    TooLong,
}

/// Waits until NCCL has taken in the last call.
pub(super) fn wait(comm: &Comm, patience: Duration, aborted: &AtomicBool) -> Result<(), Waited> {
    let begun = Instant::now();
    while comm.progress().map_err(Waited::Failed)? == Progress::UnderWay {
        if aborted.load(Ordering::SeqCst) {
            return Err(Waited::Aborted);
        }
        if begun.elapsed() > patience {
            return Err(Waited::TooLong);
        }
        std::thread::sleep(BUSY);
    }
    Ok(())
}
