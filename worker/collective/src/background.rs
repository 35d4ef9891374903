//! Operations beside the caller's computation: the collective lives on a thread of its own, and buffers go
//! there and come back by change of ownership.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

use crate::error::CollectiveError;
use crate::{AbortHandle, Buffer, Collective, Rows};

type Task = Box<dyn FnOnce(&mut Worker) + Send>;

/// Owns the collective on one thread named `squad-allreduce`. Operations run in the order in which they were
/// handed over; after the first error all of them fail with that error.
///
/// Dropping it ends the thread. Operations that are still under way are aborted, so that this cannot hang.
#[derive(Debug)]
pub struct Background {
    /// `None` while it is being dropped, and if there never was a thread.
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    abort: AbortHandle,
    /// Tasks handed over whose work is not done.
    under_way: Arc<AtomicUsize>,
    /// What is answered when there is no thread to answer.
    no_thread: CollectiveError,
    rank: usize,
    world: usize,
    transport: &'static str,
}

/// What lives on the thread.
struct Worker {
    collective: Box<dyn Collective>,
    rank: usize,
    broken: Option<CollectiveError>,
    under_way: Arc<AtomicUsize>,
}

impl Worker {
    /// Does `work` as [`Worker::do_work`] does, and counts it as finished. That must come before the caller
    /// is answered: it may drop its [`Background`] at once, which is no reason to abort.
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Collective) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        let result = self.do_work(work);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// Does `work` unless something has failed before, and remembers its failure. A mistake in using an
    /// operation breaks nothing.
    fn do_work<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Collective) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        // Unwind safety: after a panic the collective is never used again.
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut *self.collective))).unwrap_or_else(|panic| {
            // The neighbours wait for an operation that was left in its middle.
            self.collective.abort_handle().abort();
            Err(CollectiveError::Panicked { rank: self.rank, message: message(&*panic) })
        });
        if let Err(error) = &result
            && !matches!(error, CollectiveError::Usage { .. })
        {
            self.broken = Some(error.clone());
        }
        result
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

impl Background {
    /// Moves the collective to a new thread. If the system gives none, every operation answers so with
    /// [`CollectiveError::Local`].
    #[must_use]
    pub fn start(collective: Box<dyn Collective>) -> Background {
        let (rank, world, transport) = (collective.rank(), collective.world(), collective.transport());
        let abort = collective.abort_handle();
        let (tasks, queue) = unbounded::<Task>();
        let under_way = Arc::new(AtomicUsize::new(0));
        let finished = Arc::clone(&under_way);
        let started = thread::Builder::new().name("squad-allreduce".to_owned()).spawn(move || {
            let mut worker = Worker { collective, rank, broken: None, under_way: finished };
            for task in queue {
                task(&mut worker);
            }
        });
        let (thread, tasks, no_thread) = match started {
            Ok(thread) => (Some(thread), Some(tasks), CollectiveError::Aborted { rank }),
            Err(cause) => {
                (None, None, CollectiveError::local(rank, "starting the collective's thread", cause))
            }
        };
        Background { tasks, thread, abort, under_way, no_thread, rank, world, transport }
    }

    /// A bucket of `len` zeros in the memory that is reduced fastest; see [`Collective::buffer`].
    ///
    /// # Errors
    /// The error that broke the collective, now or before.
    pub fn buffer(&self, len: usize) -> Result<Buffer, CollectiveError> {
        self.run(move |collective| collective.buffer(len))
    }

    /// Hands over a bucket, of which the first `len` elements are to be summed over all ranks. The very same
    /// memory comes back through the answer.
    pub fn all_reduce(&self, bucket: impl Into<Buffer>, len: usize) -> Pending {
        self.reduce(bucket.into(), move |collective, bucket| collective.all_reduce_buffer(bucket, len))
    }

    /// The same with rows of a table that the bucket begins with, and all behind it: see
    /// [`Collective::all_reduce_table`].
    pub fn all_reduce_table(&self, bucket: impl Into<Buffer>, len: usize, rows: Rows) -> Pending {
        self.reduce(bucket.into(), move |collective, bucket| collective.all_reduce_table(bucket, len, &rows))
    }

    fn reduce(
        &self,
        mut bucket: Buffer,
        work: impl FnOnce(&mut dyn Collective, &mut Buffer) -> Result<(), CollectiveError> + Send + 'static,
    ) -> Pending {
        let (answer, outcome) = bounded(1);
        if self.tasks.is_none() {
            let (now, result) = (Instant::now(), Err(self.no_thread.clone()));
            // There is room for one answer, and `outcome` is alive.
            answer.send(Settled { bucket, result, started: now, ended: now }).ok();
            return Pending { outcome, no_thread: self.no_thread.clone() };
        }
        self.hand_over(Box::new(move |worker| {
            let started = Instant::now();
            let result = worker.attempt(|collective| work(collective, &mut bucket));
            // A caller that no longer waits does not want the bucket either.
            answer.send(Settled { bucket, result, started, ended: Instant::now() }).ok();
        }));
        Pending { outcome, no_thread: self.no_thread.clone() }
    }

    /// Runs `work` on the thread, after everything handed over before, and waits for it.
    ///
    /// # Errors
    /// What `work` answers, or the error that broke the collective before.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Collective) -> Result<T, CollectiveError> + Send + 'static,
    ) -> Result<T, CollectiveError> {
        let (answer, outcome) = bounded(1);
        self.hand_over(Box::new(move |worker| {
            // The caller waits below.
            answer.send(worker.attempt(work)).ok();
        }));
        outcome.recv().unwrap_or_else(|_| Err(self.no_thread.clone()))
    }

    fn hand_over(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            self.under_way.fetch_add(1, Ordering::SeqCst);
            // Fails only if the thread is gone; then the answer's sender is dropped, which its receiver sees.
            tasks.send(task).ok();
        }
    }

    /// Number of this rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    #[must_use]
    pub fn world(&self) -> usize {
        self.world
    }

    /// What carries the bytes; see [`Collective::transport`].
    #[must_use]
    pub fn transport(&self) -> &'static str {
        self.transport
    }

    /// A handle that ends blocked operations from another thread.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.under_way.load(Ordering::SeqCst) > 0 {
            self.abort.abort();
        }
        // Without a sender the thread's loop ends.
        self.tasks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the collective's thread panicked");
        }
    }
}

/// A reduction that was handed over.
#[must_use = "the bucket comes back through it, and the error"]
#[derive(Debug)]
pub struct Pending {
    outcome: Receiver<Settled>,
    no_thread: CollectiveError,
}

/// A bucket that came back summed.
#[derive(Debug)]
pub struct Reduced {
    /// The memory that was handed over.
    pub bucket: Buffer,
    /// When its reduction began.
    pub started: Instant,
    /// When its reduction ended.
    pub ended: Instant,
}

/// A bucket that came back, whether or not it could be summed.
#[derive(Debug)]
pub struct Settled {
    /// The memory that was handed over. After an error its contents are unspecified.
    pub bucket: Buffer,
    /// What became of the reduction.
    pub result: Result<(), CollectiveError>,
    /// When its turn came.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
}

impl Pending {
    /// Waits for the reduction. After an error the bucket is freed; whoever has tensors that alias it uses
    /// [`Pending::settle`].
    ///
    /// # Errors
    /// What broke the collective, now or before; [`CollectiveError::Usage`] if the length was beyond the
    /// bucket.
    pub fn wait(self) -> Result<Reduced, CollectiveError> {
        let Settled { bucket, result, started, ended } = self.settle()?;
        result.map(|()| Reduced { bucket, started, ended })
    }

    /// Waits for the reduction, and gives the bucket back after an error too.
    ///
    /// # Errors
    /// [`CollectiveError::Aborted`] if the thread is gone, and the bucket with it. That cannot happen while
    /// panics unwind.
    pub fn settle(self) -> Result<Settled, CollectiveError> {
        self.outcome.recv().map_err(|_| self.no_thread)
    }

    /// The same without waiting: `None` while it is under way. What it gave once it does not give again.
    pub fn try_settle(&self) -> Option<Result<Settled, CollectiveError>> {
        match self.outcome.try_recv() {
            Ok(settled) => Some(Ok(settled)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(self.no_thread.clone())),
        }
    }
}
