//! The caller's side: joining, handing over buffers, waiting on the GPU.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Version;
use super::api::{Api, UniqueId};
use super::device::{DeviceBuffer, Gpu, Mark, Memory, Stream};
use super::issue::{Issued, Issuer, Shared, Task};
use crate::{AbortHandle, Background, CollectiveError};

/// How a rank joins.
#[derive(Clone, Debug)]
pub struct Options {
    /// The driver's number of this rank's GPU.
    pub device: usize,
    /// How long a silent peer is waited for.
    pub patience: Duration,
    /// Files to try where the dynamic loader knows no NCCL.
    pub libraries: Vec<PathBuf>,
}

/// The ranks of a gang, joined by NCCL. Dropping it leaves; operations that are still under way are aborted.
pub struct Communicator {
    /// `None` while it is being dropped.
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    gpu: Arc<Gpu>,
    /// What the caller computes on.
    default: Stream,
    rank: usize,
    patience: Duration,
    version: Version,
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Communicator").field("rank", &self.rank).field("version", &self.version).finish()
    }
}

/// A reduction that was handed over.
#[must_use = "the caller's stream waits for the sum only once this is settled"]
#[derive(Debug)]
pub struct Reducing {
    answer: Receiver<Result<Issued, CollectiveError>>,
}

impl Communicator {
    /// Joins all ranks of `control`, which call it at the same time. What is missing at one rank is told to all of them, so
    /// that none waits for it.
    ///
    /// # Errors
    /// [`CollectiveError::NcclMissing`] or [`CollectiveError::Nccl`], about this rank or another; what broke the ring.
    pub fn join(options: Options, control: &Background) -> Result<Self, CollectiveError> {
        let (rank, world) = (control.rank(), control.world());
        let ready = prepare(&options, rank);
        let mine = ready.as_ref().map(|ready| ready.id.map_or_else(Vec::new, UniqueId::to_bytes));
        let all = tell(control, mine)?;
        let Ready { api, gpu, .. } = ready?;
        let id = UniqueId::from_bytes(&all[0]).ok_or_else(|| CollectiveError::Nccl {
            rank,
            problem: "rank 0 gave an id of another length; all ranks must be of one version".into(),
        })?;

        let shared = Arc::new(Shared::default());
        let (tasks, queue) = unbounded();
        let (joined, outcome) = bounded(1);
        let patience = options.patience;
        let of_thread = (Arc::clone(&api), Arc::clone(&gpu), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("squad-nccl".into()).spawn(move || {
            let (api, gpu, shared) = of_thread;
            match Issuer::join((&api, &gpu), id, (rank, world), patience, shared) {
                Ok(issuer) => {
                    joined.send(Ok(())).ok();
                    issuer.serve(&queue);
                }
                Err(error) => drop(joined.send(Err(error))),
            }
        });
        let thread = thread.map_err(|cause| CollectiveError::local(rank, "starting NCCL's thread", cause))?;
        let answer = outcome.recv_timeout(patience * 2).unwrap_or_else(|_| {
            Err(CollectiveError::Nccl {
                rank,
                problem: format!("joining did not end within {:.1?}", patience * 2),
            })
        });
        let communicator = Self {
            tasks: Some(tasks),
            thread: Some(thread),
            default: Stream::default_of(&gpu),
            version: api.version(),
            shared,
            gpu,
            rank,
            patience,
        };
        tell(control, answer.as_ref().map(|()| Vec::new()))?;
        answer.map(|()| communicator)
    }

    /// Which NCCL it is.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Marks the end of what the caller's stream has been told.
    ///
    /// # Errors
    /// The driver's word.
    pub fn mark(&self) -> Result<Mark, CollectiveError> {
        let made = self.gpu.make_current().and_then(|()| Mark::at_end_of(&self.default));
        made.map_err(|problem| self.failed(problem))
    }

    /// Hands over a buffer that is to be summed over all ranks, once the caller's stream has done what it has been told so
    /// far. All ranks hand over the same buffers in the same order.
    ///
    /// # Errors
    /// What broke the communicator before.
    pub fn all_reduce(&self, buffer: DeviceBuffer) -> Result<Reducing, CollectiveError> {
        self.check()?;
        let ready = self.mark()?;
        let (answer, receiver) = bounded(1);
        self.hand_over(Task::AllReduce { buffer, ready, answer });
        Ok(Reducing { answer: receiver })
    }

    /// Has the caller's stream wait, on the GPU, until the sum is there. Gives the marks of its beginning and its end.
    ///
    /// # Errors
    /// What broke the communicator.
    pub fn settle(&self, reducing: &Reducing) -> Result<(Mark, Mark), CollectiveError> {
        let issued = reducing.answer.recv_timeout(self.patience * 2).unwrap_or_else(|_| {
            Err(self.shared.broken().unwrap_or_else(|| self.failed("its thread does not answer".into())))
        })?;
        let waits = self.gpu.make_current().and_then(|()| self.default.wait_for(&issued.done));
        waits.map_err(|problem| self.failed(problem))?;
        Ok((issued.began, issued.done))
    }

    /// Aborts everything when this operation of the ring fails: over its connections a peer's death is seen at once.
    pub fn watch(&self, pending: crate::Pending) {
        self.hand_over(Task::Watch(pending));
    }

    /// To be asked whenever the host has waited for the GPU, before what it computed is believed: after an abort its kernels
    /// end without sums.
    ///
    /// # Errors
    /// What broke the communicator.
    pub fn check(&self) -> Result<(), CollectiveError> {
        self.shared.broken().map_or(Ok(()), Err)
    }

    /// A handle that ends operations under way from another thread.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(Arc::clone(&self.shared.aborted), || {})
    }

    /// Memory of `len` floats on this rank's GPU.
    pub(super) fn memory(&self, len: usize) -> Result<Memory, CollectiveError> {
        self.said(Memory::new(&self.gpu, len))
    }

    /// The driver's word as an error of this rank's.
    pub(super) fn said<T>(&self, outcome: Result<T, String>) -> Result<T, CollectiveError> {
        outcome.map_err(|problem| self.failed(problem))
    }

    fn failed(&self, problem: String) -> CollectiveError {
        CollectiveError::Nccl { rank: self.rank, problem }
    }

    fn hand_over(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // Fails only if the thread is gone; then nobody answers, which `settle` sees.
            tasks.send(task).ok();
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.tasks = None;
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() {
            if begun.elapsed() > self.patience * 2 {
                tracing::warn!("NCCL does not let go; its thread is left behind");
                return;
            }
            // Fixed: it only paces looks.
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            tracing::error!("NCCL's thread panicked");
        }
    }
}

/// What a rank has before it joins.
struct Ready {
    api: Arc<Api>,
    gpu: Arc<Gpu>,
    /// Rank 0's.
    id: Option<UniqueId>,
}

fn prepare(options: &Options, rank: usize) -> Result<Ready, CollectiveError> {
    let failed = |problem: String| CollectiveError::Nccl { rank, problem };
    let api = Arc::new(Api::load(&options.libraries)?);
    let gpu = Gpu::open(options.device).map_err(failed)?;
    gpu.make_current().map_err(failed)?;
    let id = (rank == 0).then(|| api.unique_id()).transpose().map_err(failed)?;
    Ok(Ready { api, gpu, id })
}

/// Tells all ranks what this one has, or why it has nothing. Gives what all have.
fn tell(
    control: &Background,
    mine: Result<Vec<u8>, &CollectiveError>,
) -> Result<Vec<Vec<u8>>, CollectiveError> {
    let message = match &mine {
        Ok(bytes) => [&[1], bytes.as_slice()].concat(),
        Err(error) => [&[0], error.to_string().as_bytes()].concat(),
    };
    let all = control.run(move |collective| collective.gather_bytes(message))?;
    // This rank's own error says most.
    if let Err(error) = mine {
        return Err(error.clone());
    }
    let mut known = Vec::with_capacity(all.len());
    for (rank, message) in all.into_iter().enumerate() {
        match message.split_first() {
            Some((1, bytes)) => known.push(bytes.to_vec()),
            Some((_, text)) => {
                let problem = format!("rank {rank} cannot: {}", String::from_utf8_lossy(text));
                return Err(CollectiveError::Nccl { rank: control.rank(), problem });
            }
            None => {
                let problem = format!("rank {rank} said nothing");
                return Err(CollectiveError::Nccl { rank: control.rank(), problem });
            }
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fence, RingListener, Topology, Transport};
    use std::sync::atomic::AtomicBool;

    /// The library that scripts/setup.sh --cuda brings; `None`, with a word, where it was not run.
    fn library() -> Option<PathBuf> {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/libtorch-cuda/libnccl.so.2");
        if !file.is_file() {
            eprintln!("skipped: {} is not there; scripts/setup.sh --cuda brings it", file.display());
        }
        file.is_file().then_some(file)
    }

    fn has_driver() -> bool {
        let found = Gpu::open(0).is_ok();
        if found {
            eprintln!("skipped: this machine has a GPU");
        }
        found
    }

    fn gang(world: usize, libraries: &[PathBuf]) -> Vec<Result<(), CollectiveError>> {
        let listeners: Vec<_> =
            (0..world).map(|_| RingListener::bind([127, 0, 0, 1].into()).unwrap()).collect();
        let peers: Vec<_> = listeners.iter().map(RingListener::local_addr).collect();
        std::thread::scope(|scope| {
            let ranks: Vec<_> = listeners
                .into_iter()
                .enumerate()
                .map(|(rank, listener)| {
                    let peers = peers.clone();
                    scope.spawn(move || {
                        let fence =
                            Fence { job: "j".into(), generation: 1, token: "t".into(), layout: [0; 32] };
                        let patience = Duration::from_secs(20);
                        let (compression, host) = Default::default();
                        let transport = Transport::Tcp;
                        let topology =
                            Topology { rank, world, peers, fence, patience, transport, compression, host };
                        let control = Background::start(crate::connect(listener, topology).unwrap());
                        let options = Options { device: 0, patience, libraries: libraries.to_vec() };
                        Communicator::join(options, &control).map(drop)
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn without_a_gpu_every_rank_hears_so_at_once() {
        if has_driver() {
            return;
        }
        let begun = Instant::now();
        for outcome in gang(3, library().as_slice()) {
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains("no NVIDIA driver") || text.contains("cannot be loaded"), "{text}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits for NCCL");
    }

    #[test]
    fn what_is_missing_is_an_ordinary_error() {
        let file = PathBuf::from("/no/where/libnccl.so.2");
        match Api::load(std::slice::from_ref(&file)) {
            Ok(api) => eprintln!("skipped: this system has NCCL {}", api.version()),
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error, CollectiveError::NcclMissing { .. }), "{text}");
                assert!(
                    text.contains("/no/where/libnccl.so.2") && text.contains("setup.sh --cuda"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn the_library_answers_and_a_join_without_a_gpu_fails_in_time() {
        let Some(file) = library() else { return };
        let version = super::super::version(std::slice::from_ref(&file)).unwrap();
        assert!(version.code >= 22_800 && version.to_string().starts_with("2."), "{version}");
        assert!(version.file.as_ref().is_some_and(|file| file.is_file()));
        if has_driver() {
            return;
        }
        let api = Arc::new(Api::load(&[file]).unwrap());
        let begun = Instant::now();
        let joined = api.unique_id().and_then(|id| {
            assert_eq!(UniqueId::from_bytes(&id.to_bytes()).map(UniqueId::to_bytes), Some(id.to_bytes()));
            let comm = super::super::api::Comm::join(&api, id, 0, 1)?;
            super::super::issue::wait(&comm, Duration::from_secs(10), &AtomicBool::new(false)).map_err(
                |waited| match waited {
                    super::super::issue::Waited::Failed(problem) => problem,
                    _ => "waited in vain".into(),
                },
            )
        });
        let problem = joined.unwrap_err();
        println!("NCCL {version} without a GPU: {problem}");
        assert!(problem.starts_with("nccl") || problem.starts_with("NCCL"), "{problem}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
