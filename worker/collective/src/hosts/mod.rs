//! All-reduce between ranks on several hosts: shared memory inside each, TCP between them.
//!
//! The ranks of a host sum their values in the memory that they share. As many rings go from host to host as the host
//! with fewest ranks has of them: ring `c` joins the ranks at position `c` of all hosts, and sums part `c` of the
//! elements. So each value passes a network once for each host, not once for each rank, and the ranks of a host
//! share that work. Then each copies what it lacks.
//!
//! A part is summed over the ranks of each host from the lowest to the highest, and over hosts in the order in which
//! [`crate::spans`] of that part go round the ring. So all ranks hold the same bits, from run to run.
//!
//! All else, which training does seldom or with few bytes, goes over the ring of all ranks.

mod watch;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::circle::Circle;
use crate::error::{CollectiveError, Operation};
use crate::exchange::{Call, Watch};
use crate::ring::{Ring, check_blob, check_root};
use crate::shm::{Area, Control, SCRATCH, Shm, copy, share};
use crate::tcp::{self, RingListener};
use crate::{AbortHandle, Buffer, Collective, Topology};
use watch::{Line, Lookout};

/// One rank of a gang on several hosts.
pub(crate) struct Hosts {
    /// All ranks.
    flat: Ring,
    /// Ranks at the same position of each host; `None` if some host has no rank there.
    between: Option<Ring>,
    /// How many rings there are between the hosts.
    rings: usize,
    /// Ranks of this host.
    inside: Shm,
    /// The lowest rank of this host.
    leader: usize,
    /// Memory for what lies in the caller's own; away while it is in use.
    scratch: Option<Area>,
    /// Bytes of the operation under way that are done.
    done: Arc<AtomicU64>,
    rank: usize,
    world: usize,
    /// Operations begun so far.
    operations: u64,
    /// The first error; the answer to everything after it.
    broken: Option<CollectiveError>,
}

/// Moves the ranks of `flat`, which are grouped by host, to shared memory and rings between hosts. If one of them cannot
/// share memory, gives the ring back, with the reason.
///
/// # Errors
/// What broke the ring, or a connection between hosts that cannot be had.
pub(crate) fn start(
    mut flat: Ring,
    listener: &RingListener,
    topology: &Topology,
    groups: &[Vec<usize>],
) -> Result<Result<Hosts, (Ring, String)>, CollectiveError> {
    let rank = topology.rank;
    let place = |group: &Vec<usize>| group.iter().position(|member| *member == rank);
    let found = groups.iter().enumerate().find_map(|(host, group)| Some((host, place(group)?)));
    let Some((host, position)) = found else {
        return Ok(Err((flat, "this rank is on no host".to_owned())));
    };
    let (members, rings) = (&groups[host], groups.iter().map(Vec::len).min().unwrap_or(0));
    let region = match share::share(&mut flat, members[0], Shm::bytes_of_host(members.len()))? {
        Ok(region) => region,
        Err(reason) => return Ok(Err((flat, reason))),
    };
    let mut between = None;
    if position < rings {
        let across = groups.iter().map(|group| group[position]).collect();
        let circle = Circle::among(topology, across, host, &format!("between hosts {position}"));
        let sockets = tcp::establish(listener, &circle).map_err(|error| flat.poison(error))?;
        between = Some(Ring::new(sockets.aborted_with(flat.sockets()), &circle));
    }
    let done = Arc::<AtomicU64>::default();
    let lookout = |control: &Arc<Control>, lines| -> Arc<dyn Watch> {
        let (control, done) = (Arc::clone(control), Arc::clone(&done));
        Arc::new(Lookout { position, rank, control, lines, done })
    };
    let idle = Line { sockets: Arc::clone(flat.sockets()), terms: flat.terms(), idle: true };
    let mut lines = vec![idle.clone()];
    lines.extend(between.as_ref().map(|ring| Line {
        sockets: Arc::clone(ring.sockets()),
        terms: ring.terms(),
        idle: false,
    }));
    let place = (members.clone(), position);
    let sockets = Arc::clone(flat.sockets());
    let (inside, scratch) = Shm::of_host(place, sockets, region, |control| lookout(control, lines), topology);
    flat.watch(lookout(inside.control(), Vec::new()));
    if let Some(ring) = &mut between {
        ring.watch(lookout(inside.control(), vec![idle]));
    }
    let (leader, scratch, world) = (members[0], Some(scratch), topology.world);
    let (operations, broken) = (0, None);
    let mut hosts =
        Hosts { flat, between, rings, inside, leader, scratch, done, rank, world, operations, broken };
    hosts.barrier()?;
    Ok(Ok(hosts))
}

impl Hosts {
    /// Carries `work` out as the operation that is described.
    fn perform<T>(
        &mut self,
        (operation, root, total, buffer): (Operation, usize, usize, u32),
        work: impl FnOnce(&mut Hosts) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.operations += 1;
        self.done.store(0, Ordering::Relaxed);
        let sequence = self.operations;
        self.inside.begin(Call { operation, root, total: total as u64, sequence }, buffer);
        self.flat.number(sequence, 0);
        if let Some(ring) = &mut self.between {
            ring.number(sequence, if operation == Operation::AllReduceRows { root } else { 0 });
        }
        work(self).map_err(|error| self.fail(error))
    }

    /// Ends the gang: tells the others on this host, and the neighbours in all rings, why.
    fn fail(&mut self, error: CollectiveError) -> CollectiveError {
        let error = self.flat.poison(error);
        self.inside.bury(&error);
        if let Some(ring) = &mut self.between {
            ring.poison(error.clone());
        }
        self.broken = Some(error.clone());
        error
    }

    /// Sums the first `len` elements of `area`, of which the first `compressible` may be rounded on their way, and
    /// multiplies the sums by `scale`.
    fn reduce(
        &mut self,
        area: &mut Area,
        len: usize,
        (compressible, scale): (usize, f32),
    ) -> Result<(), CollectiveError> {
        let (inside, rings) = (&mut self.inside, self.rings);
        inside.meet_host()?;
        inside.sum_for_keepers(area, len, rings);
        if inside.ranks() > rings {
            inside.meet_again()?;
        }
        if let Some(ring) = &mut self.between {
            let (part, kept) = inside.kept(area, len, rings);
            ring.sum(kept, compressible.clamp(part.start, part.end) - part.start, scale)?;
            self.done.fetch_add((part.len() * size_of::<f32>()) as u64, Ordering::Relaxed);
        }
        inside.meet_again()?;
        inside.copy_from_keepers(area, len, rings);
        inside.meet_again()
    }

    /// Sums values in the caller's memory, a piece at a time.
    fn reduce_copied(
        &mut self,
        values: &mut [f32],
        (compressible, scale): (usize, f32),
    ) -> Result<(), CollectiveError> {
        let Some(mut scratch) = self.scratch.take() else {
            let problem = "the memory for copies is in use".to_owned();
            return Err(CollectiveError::Usage { problem });
        };
        let total = values.len();
        let result = (0..total.div_ceil(SCRATCH).max(1)).try_for_each(|piece| {
            let start = piece * SCRATCH;
            let end = (start + SCRATCH).min(total);
            let piece = &mut values[start..end];
            copy(&mut scratch.values_mut()[..piece.len()], piece);
            self.reduce(&mut scratch, piece.len(), (compressible.clamp(start, end) - start, scale))?;
            copy(piece, &scratch.values()[..piece.len()]);
            Ok(())
        });
        self.scratch = Some(scratch);
        result
    }

    fn reduce_buffer(&mut self, buffer: &mut Buffer, len: usize, scale: f32) -> Result<(), CollectiveError> {
        crate::check_length(buffer, len)?;
        let how = (buffer.compressible(len), scale);
        match buffer.area() {
            Some(area) if self.inside.owns(area) => {
                let what = (Operation::AllReduce, 0, len, area.number);
                let result = self.perform(what, |hosts| hosts.reduce(area, len, how));
                if result.is_err() {
                    area.detach();
                }
                result
            }
            _ => {
                let values = &mut buffer[..len];
                let what = (Operation::AllReduce, 0, len, 0);
                self.perform(what, |hosts| hosts.reduce_copied(values, how))
            }
        }
    }

    fn make_area(&mut self, len: usize) -> Result<Option<Area>, CollectiveError> {
        let (leader, ranks) = (self.leader, self.inside.ranks());
        let shared = self.perform((Operation::MakeBuffer, 0, len, 0), |hosts| {
            hosts.flat.agree(Operation::MakeBuffer, len)?;
            share::share(&mut hosts.flat, leader, Area::bytes_of(ranks, len))
        })?;
        Ok(match shared {
            Ok(region) => Some(self.inside.area_of_host(region, len)),
            Err(reason) => {
                tracing::warn!(rank = self.rank, len, reason, "a buffer is not shared; it will be copied");
                None
            }
        })
    }
}

impl Collective for Hosts {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn transport(&self) -> &'static str {
        "hierarchical"
    }

    fn buffer(&mut self, len: usize) -> Result<Buffer, CollectiveError> {
        let area = if len == 0 { None } else { self.make_area(len)? };
        Ok(area.map_or_else(|| Buffer::heap(len), Buffer::shared))
    }

    fn all_reduce(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let what = (Operation::AllReduce, 0, buffer.len(), 0);
        self.perform(what, |hosts| hosts.reduce_copied(buffer, (0, 1.0)))
    }

    fn all_reduce_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        self.reduce_buffer(buffer, len, 1.0)
    }

    fn average_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        self.reduce_buffer(buffer, len, 1.0 / self.world as f32)
    }

    fn all_reduce_spans(
        &mut self,
        buffer: &mut [f32],
        _spans: Vec<Range<usize>>,
        digest: usize,
    ) -> Result<(), CollectiveError> {
        let (what, how) = ((Operation::AllReduceRows, digest, buffer.len(), 0), (buffer.len(), 1.0));
        self.perform(what, |hosts| hosts.reduce_copied(buffer, how))
    }

    fn all_reduce_range(&mut self, buffer: &mut Buffer, range: Range<usize>) -> Result<(), CollectiveError> {
        let compressible = buffer.compressible(range.end).saturating_sub(range.start);
        let what = (Operation::AllReduce, 0, range.len(), 0);
        self.perform(what, |hosts| hosts.reduce_copied(&mut buffer[range], (compressible, 1.0)))
    }

    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError> {
        let what = (Operation::ReduceScatter, 0, buffer.len(), 0);
        self.perform(what, |hosts| hosts.flat.reduce_scatter(buffer))
    }

    fn all_gather(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        self.perform((Operation::AllGather, 0, buffer.len(), 0), |hosts| hosts.flat.all_gather(buffer))
    }

    fn broadcast(&mut self, buffer: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world)?;
        let what = (Operation::Broadcast, root, buffer.len(), 0);
        self.perform(what, |hosts| hosts.flat.broadcast(buffer, root))
    }

    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_blob(&mine)?;
        let what = (Operation::GatherBytes, 0, mine.len(), 0);
        self.perform(what, |hosts| hosts.flat.gather_bytes(mine))
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.perform((Operation::Barrier, 0, 0, 0), |hosts| hosts.flat.barrier())
    }

    fn abort_handle(&self) -> AbortHandle {
        let between = self.between.as_ref().map(|ring| Arc::downgrade(ring.sockets()));
        let wake = self.inside.wake();
        self.flat.sockets().abort_handle(move || {
            if let Some(sockets) = between.as_ref().and_then(std::sync::Weak::upgrade) {
                sockets.end();
            }
            wake();
        })
    }
}

impl Drop for Hosts {
    /// Says that this rank goes, and that it is no loss to whoever is still about the last operation.
    fn drop(&mut self) {
        if self.broken.is_none() {
            self.flat.leave();
            if let Some(ring) = &mut self.between {
                ring.leave();
            }
        }
    }
}
