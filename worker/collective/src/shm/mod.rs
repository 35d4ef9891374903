//! All-reduce between ranks of one host, through memory that all of them map.
//!
//! What a rank is given in a [`crate::Buffer`] of this gang lies in shared memory already: once all ranks have
//! arrived, each sums a part of it over all ranks, straight from their memory into all of theirs. What it is
//! given in the caller's own memory is copied through a small staging area, a segment at a time: every rank
//! lays down what others are to sum, sums its share of what all have laid down, and lays the sums down for the others.
//!
//! Ranks wait for each other in [`rounds`]; the connections of the ring stay open and silent, and tell when
//! a process has died. The memory has no name and ends with the last process that maps it.
//!
//! # Who may touch what
//!
//! A rank's staging slot of a round, for values and for sums, is written by it alone before it arrives in the round,
//! and only read from when the round is complete until the next one is. Two slots alternate. A buffer is its owner's alone,
//! except between the two rounds of an operation on it: then element `i` of all ranks' parts is touched only by
//! the rank whose share `i` is in. A rank that leaves an operation early, with an error, first takes its own
//! part out of the shared memory.

#![allow(unsafe_code, reason = "memory that other processes map has no safe form in the standard library")]

mod area;
mod bound;
mod control;
mod hosts;
mod lay;
mod meet;
mod operations;
mod region;
mod room;
mod rounds;
pub(crate) mod share;
mod sum;
mod tuner;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use area::Area;
pub use bound::bound;
pub(crate) use control::Control;
pub(crate) use hosts::SCRATCH;
pub(crate) use lay::copy;

use area::Areas;
use control::Head;
use region::{Region, whole_pages};
use tuner::Tuner;

use crate::error::{CollectiveError, Operation};
use crate::exchange::{Call, Watch};
use crate::link::Sockets;
use crate::ring::{Ring, check_blob, check_root};
use crate::{AbortHandle, Buffer, Collective, Rows, Topology, lanes};

/// Bytes that a rank lays down at a time: what all of them lay down should stay in the caches.
const SEGMENT: usize = 256 * 1024;

/// Bytes of a staging slot: values, and sums behind them.
const SLOT: usize = 2 * SEGMENT;

/// Bytes of the staging slots of a rank.
const SLOTS: usize = 2 * SLOT;

/// What tells of ranks that are gone.
enum Outside {
    /// All ranks are on this host. Nothing is sent over the ring any more; when a connection ends, so has a process.
    /// It is kept for its connections.
    Silent(#[allow(dead_code, reason = "holds the connections open")] Box<Ring>),
    /// Other hosts go on talking with this one.
    Hosts(Arc<dyn Watch>),
}

/// One rank of a gang on one host.
pub(crate) struct Shm {
    outside: Outside,
    /// Connections of the ring; they tell of an abort.
    sockets: Arc<Sockets>,
    addresses: Vec<SocketAddr>,
    /// Number in the world of each rank of this host.
    members: Vec<usize>,
    /// Place of this rank among them, and their number.
    rank: usize,
    world: usize,
    patience: Duration,
    control: Arc<Control>,
    staging: Areas,
    tuner: Tuner,
    /// When the connections were last looked at before an operation.
    looked: Instant,
    /// The last round that this rank has arrived in.
    round: u32,
    /// Whether there are fewer cores than ranks.
    crowded: bool,
    /// Operations begun so far, and the one under way.
    sequence: u64,
    head: Head,
    /// Bytes of the operation under way that are done.
    done: u64,
    /// Buffers made so far.
    buffers: u32,
    /// The first error; the answer to everything after it.
    broken: Option<CollectiveError>,
}

/// Bytes before the staging slots.
fn words_bytes(world: usize) -> usize {
    whole_pages(Control::bytes(world)).unwrap_or(usize::MAX)
}

/// Moves the ranks of `ring` to shared memory, if they can have it; else gives the ring back, with the reason.
///
/// # Errors
/// What broke the ring.
pub(crate) fn start(
    mut ring: Ring,
    topology: &Topology,
) -> Result<Result<Shm, (Ring, String)>, CollectiveError> {
    let staging = Areas::bytes(topology.world, SLOTS).unwrap_or(usize::MAX);
    let bytes = words_bytes(topology.world).saturating_add(staging);
    Ok(match share::share(&mut ring, 0, bytes)? {
        Ok(region) => Ok(Shm::new(ring, Arc::new(region), topology)),
        Err(reason) => Err((ring, reason)),
    })
}

impl Shm {
    fn new(ring: Ring, region: Arc<Region>, topology: &Topology) -> Shm {
        let sockets = Arc::clone(ring.sockets());
        let members = (0..topology.world).collect();
        Shm::of_members((members, topology.rank), sockets, Outside::Silent(Box::new(ring)), region, topology)
    }

    /// The rank at `position` among `members`, which share `region`.
    fn of_members(
        (members, position): (Vec<usize>, usize),
        sockets: Arc<Sockets>,
        outside: Outside,
        region: Arc<Region>,
        topology: &Topology,
    ) -> Shm {
        region.prepare(0..region.bytes());
        let world = members.len();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let call = Call { operation: Operation::Barrier, root: 0, total: 0, sequence: 0 };
        Shm {
            outside,
            sockets,
            addresses: topology.peers.clone(),
            members,
            rank: position,
            world,
            patience: topology.patience,
            control: Arc::new(Control::new(Arc::clone(&region), world)),
            staging: Areas::new(region, words_bytes(world), SLOTS),
            tuner: Tuner::new(),
            looked: Instant::now(),
            round: 0,
            crowded: world > cores,
            sequence: 0,
            head: Head { call, buffer: 0 },
            done: 0,
            buffers: 0,
            broken: None,
        }
    }

    /// The number in the world of the rank at `position` of this host.
    fn name(&self, position: usize) -> usize {
        self.members[position]
    }

    /// Carries `work` out as the operation that `what` describes: kind, root, size, and buffer.
    fn perform<T>(
        &mut self,
        (operation, root, total, buffer): (Operation, usize, usize, u32),
        work: impl FnOnce(&mut Shm) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.sequence += 1;
        let call = Call { operation, root, total: total as u64, sequence: self.sequence };
        self.head = Head { call, buffer };
        self.done = 0;
        let whole = self.check_alive().and_then(|()| self.check_connections());
        whole.and_then(|()| work(self)).map_err(|error| self.fail(error))
    }

    /// Memory that all ranks see, of `len` floats for each; `None` where the system gives none.
    fn make_area(&mut self, len: usize) -> Result<Option<Area>, CollectiveError> {
        self.perform((Operation::MakeBuffer, 0, len, 0), |shm| shm.meet())?;
        let bytes = len.checked_mul(size_of::<f32>());
        let Some(total) = bytes.and_then(|bytes| Areas::bytes(self.world, bytes)) else {
            return Ok(None);
        };
        match share::share(self, 0, total)? {
            Ok(region) => Ok(Some(self.area_in(region, len))),
            Err(reason) => {
                tracing::warn!(rank = self.rank, len, reason, "a buffer is not shared; it will be copied");
                Ok(None)
            }
        }
    }

    fn reduce_buffer(&mut self, buffer: &mut Buffer, len: usize, scale: f32) -> Result<(), CollectiveError> {
        crate::check_length(buffer, len)?;
        let area = match buffer.area() {
            Some(area) if Arc::ptr_eq(&area.gang, &self.control) => area,
            _ => {
                self.all_reduce(&mut buffer[..len])?;
                lanes::scale(&mut buffer[..len], scale);
                return Ok(());
            }
        };
        let what = (Operation::AllReduce, 0, len, area.number);
        let result = self.perform(what, |shm| shm.all_reduce_in_place(area, len, scale));
        if result.is_err() {
            area.detach();
        }
        result
    }

    /// This rank's part of a new region of which each rank of the host has a part of `len` floats.
    fn area_in(&mut self, region: Region, len: usize) -> Area {
        self.buffers += 1;
        let areas = Areas::new(Arc::new(region), 0, len * size_of::<f32>());
        // Of the others' parts this rank touches its share, and not all.
        areas.prepare(self.rank, 0..len);
        let share = sum::share(len, self.rank, self.world);
        (0..self.world).for_each(|rank| areas.prepare(rank, share.clone()));
        let gang = Arc::clone(&self.control);
        // SAFETY: the region is new. The other ranks make an area for themselves of their own part only,
        // and touch this one only in operations of `all_reduce_buffer`, to which it is given.
        unsafe { Area::new(areas, gang, self.buffers, self.rank, len) }
    }
}

impl Collective for Shm {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn transport(&self) -> &'static str {
        "shm"
    }

    fn buffer(&mut self, len: usize) -> Result<Buffer, CollectiveError> {
        let area = if len == 0 { None } else { self.make_area(len)? };
        Ok(area.map_or_else(|| Buffer::heap(len), Buffer::shared))
    }

    fn all_reduce(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let spans = crate::spans(buffer.len(), self.world);
        self.perform((Operation::AllReduce, 0, buffer.len(), 0), |shm| shm.all_reduce_staged(buffer, &spans))
    }

    fn all_reduce_spans(
        &mut self,
        buffer: &mut [f32],
        spans: Vec<Range<usize>>,
        digest: usize,
    ) -> Result<(), CollectiveError> {
        let what = (Operation::AllReduceRows, digest, buffer.len(), 0);
        self.perform(what, |shm| shm.all_reduce_staged(buffer, &spans))
    }

    fn all_reduce_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        self.reduce_buffer(buffer, len, 1.0)
    }

    fn average_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        self.reduce_buffer(buffer, len, 1.0 / self.world as f32)
    }

    fn all_reduce_table(
        &mut self,
        buffer: &mut Buffer,
        len: usize,
        rows: &Rows,
    ) -> Result<(), CollectiveError> {
        crate::check_table(buffer, len, rows)?;
        let area = match buffer.area() {
            Some(area) if Arc::ptr_eq(&area.gang, &self.control) => area,
            _ => return crate::rows::all_reduce_by_copies(self, buffer, len, rows),
        };
        let what = (Operation::AllReduceRows, rows.digest(), len, area.number);
        let result = self.perform(what, |shm| shm.all_reduce_table_in_place(area, len, rows));
        if result.is_err() {
            area.detach();
        }
        result
    }

    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError> {
        let what = (Operation::ReduceScatter, 0, buffer.len(), 0);
        self.perform(what, |shm| shm.reduce_scatter_staged(buffer))
    }

    fn all_gather(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        self.perform((Operation::AllGather, 0, buffer.len(), 0), |shm| shm.all_gather_staged(buffer))
    }

    fn broadcast(&mut self, buffer: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world)?;
        let what = (Operation::Broadcast, root, buffer.len(), 0);
        self.perform(what, |shm| shm.broadcast_staged(buffer, root))
    }

    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_blob(&mine)?;
        self.perform((Operation::GatherBytes, 0, mine.len(), 0), |shm| shm.gather_bytes_staged(mine))
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.perform((Operation::Barrier, 0, 0, 0), Shm::meet)
    }

    fn abort_handle(&self) -> AbortHandle {
        // The connections end, so that the others learn it at once; then this rank is woken.
        self.sockets.abort_handle(self.wake())
    }
}

impl Shm {
    /// Wakes this rank from its sleep.
    pub(crate) fn wake(&self) -> impl Fn() + Send + Sync + 'static {
        let (gang, rank) = (Arc::downgrade(&self.control), self.rank);
        move || {
            if let Some(gang) = gang.upgrade() {
                rounds::Words::fence(&*gang);
                rounds::ring(&*gang, rank);
            }
        }
    }
}
