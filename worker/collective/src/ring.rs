//! The ring over TCP: plans, executed one after the other, until the first error.

use std::ops::Range;
use std::sync::Arc;

use crate::circle::Circle;
use crate::error::{CollectiveError, Operation, Scene};
use crate::exchange::{Call, Exchange, Terms, Watch};
use crate::frame::{Header, Kind, Notice};
use crate::link::Sockets;
use crate::payload::{Blobs, Floats, Halves, Payload};
use crate::schedule::{self, Plan, spans};
use crate::topology::Compression;
use crate::waits::Waits;
use crate::wire::Wire;
use crate::{AbortHandle, Buffer, Collective, lanes};

/// Longest blob in a gather of bytes. Bounds what a neighbour can make this rank allocate.
pub(crate) const MAX_BLOB: u64 = 1 << 32;

/// Largest buffer that all ranks send each other as a whole, each summing for itself: half the steps, but more bytes.
const WHOLE: usize = 16 * 1024;

/// One rank of a ring over TCP.
pub(crate) struct Ring {
    terms: Terms,
    /// Place of this rank in the ring, and number of its ranks.
    position: usize,
    size: usize,
    compression: Compression,
    sockets: Arc<Sockets>,
    wire: Wire,
    /// What else is looked after while this rank waits.
    watch: Option<Arc<dyn Watch>>,
    /// Operations begun so far, or the number of the one under way.
    sequence: u64,
    /// Whether somebody else numbers the operations.
    numbered: bool,
    /// What ranks that sum must agree about besides the size; 0 if nothing.
    digest: usize,
    /// The first error; the answer to everything after it.
    broken: Option<CollectiveError>,
}

/// A root must be a rank.
pub(crate) fn check_root(root: usize, world: usize) -> Result<(), CollectiveError> {
    if root < world {
        return Ok(());
    }
    Err(CollectiveError::Usage { problem: format!("broadcast from rank {root} in a world of {world} ranks") })
}

/// What is gathered must not be too long.
pub(crate) fn check_blob(blob: &[u8]) -> Result<(), CollectiveError> {
    if blob.len() as u64 <= MAX_BLOB {
        return Ok(());
    }
    let problem = format!("{} bytes to gather; at most {MAX_BLOB} from each rank", blob.len());
    Err(CollectiveError::Usage { problem })
}

impl Ring {
    /// A ring over connections that are authenticated already.
    pub(crate) fn new(sockets: Sockets, circle: &Circle) -> Ring {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let terms = Terms {
            rank: circle.rank,
            next: circle.next(),
            previous: circle.previous(),
            fence: circle.frame_fence(),
            patience: circle.patience,
            crowded: circle.on_this_host() > cores,
        };
        Ring {
            terms,
            position: circle.position,
            size: circle.size(),
            compression: circle.compression,
            sockets: Arc::new(sockets),
            wire: Wire::new(),
            watch: None,
            sequence: 0,
            numbered: false,
            digest: 0,
            broken: None,
        }
    }

    /// What stays the same.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// Lets `watch` look while this rank waits.
    pub(crate) fn watch(&mut self, watch: Arc<dyn Watch>) {
        self.watch = Some(watch);
    }

    /// What comes next belongs to operation no. `sequence`, with this digest, of a gang of which this ring is a part.
    pub(crate) fn number(&mut self, sequence: u64, digest: usize) {
        (self.sequence, self.numbered, self.digest) = (sequence, true, digest);
    }

    /// Says to both neighbours that this rank has done its part and goes.
    pub(crate) fn leave(&mut self) {
        if self.broken.is_none() && !self.sockets.is_aborted() {
            let (sequence, fence) = (self.sequence, self.terms.fence);
            let leave =
                Header { kind: Kind::Leave, root: 0, payload: 0, sequence, total: 0, segment: 0, fence };
            self.sockets.farewell(&[], &leave.encode(), Waits::of(self.terms.patience).last_words);
        }
    }

    /// Meets all ranks that are about to do the same, of the same size.
    pub(crate) fn agree(&mut self, operation: Operation, total: usize) -> Result<(), CollectiveError> {
        // An empty gather: after its last step every rank has heard, at second hand, of all others.
        let plan = schedule::all_gather(self.position, self.size);
        let mut nothing = Blobs { blobs: vec![Vec::new(); self.size] };
        self.perform((operation, 0, total), &plan, &mut nothing)
    }

    /// Its connections.
    pub(crate) fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// The last act of connecting: all ranks have found each other.
    pub(crate) fn meet(&mut self) -> Result<(), CollectiveError> {
        self.barrier()
    }

    fn perform<P: Payload>(
        &mut self,
        (operation, root, total): (Operation, usize, usize),
        plan: &Plan,
        payload: &mut P,
    ) -> Result<(), CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.sequence += u64::from(!self.numbered);
        let call = Call { operation, root, total: total as u64, sequence: self.sequence };
        let outcome = if self.sockets.is_aborted() {
            Err(CollectiveError::Aborted { rank: self.terms.rank })
        } else {
            let watch = self.watch.as_deref();
            Exchange::new((self.terms, &self.sockets), &mut self.wire, watch, call, plan, payload).run()
        };
        outcome.map_err(|error| self.fail(error))
    }

    /// All-reduce, of which the first `compressible` elements travel in the format of this ring. Who finishes a sum
    /// multiplies it by `scale`.
    pub(crate) fn sum(
        &mut self,
        buffer: &mut [f32],
        compressible: usize,
        scale: f32,
    ) -> Result<(), CollectiveError> {
        let (rounded, exact) = match self.compression {
            Compression::None => buffer.split_at_mut(0),
            _ => buffer.split_at_mut(compressible),
        };
        if !rounded.is_empty() {
            let (total, format) = (rounded.len(), self.compression);
            let plan = schedule::all_reduce(self.position, self.size);
            let mut halves = Halves::new(Floats::new(rounded, spans(total, self.size)).scaled(scale), format);
            self.perform((Operation::AllReduce, self.digest, total), &plan, &mut halves)?;
            if exact.is_empty() {
                return Ok(());
            }
        }
        let total = exact.len();
        if total > 0 && size_of_val(exact) <= WHOLE && self.size > 1 {
            return self.sum_whole(exact, scale);
        }
        let plan = schedule::all_reduce(self.position, self.size);
        let mut floats = Floats::new(exact, spans(total, self.size)).scaled(scale);
        self.perform((Operation::AllReduce, self.digest, total), &plan, &mut floats)
    }

    /// All-reduce of a few elements: each rank gets those of all ranks, and sums them in the order in which the ring
    /// would.
    fn sum_whole(&mut self, buffer: &mut [f32], scale: f32) -> Result<(), CollectiveError> {
        let (total, size) = (buffer.len(), self.size);
        let mut of_all = vec![0.0; total * size];
        of_all[self.position * total..][..total].copy_from_slice(buffer);
        let each = (0..size).map(|rank| rank * total..(rank + 1) * total).collect();
        let plan = schedule::all_gather(self.position, size);
        self.perform((Operation::AllReduce, self.digest, total), &plan, &mut Floats::new(&mut of_all, each))?;
        for (owner, span) in spans(total, size).into_iter().enumerate() {
            let of = |step: usize| {
                let first = (owner + step) % size * total;
                &of_all[first + span.start..first + span.end]
            };
            let sum = &mut buffer[span.clone()];
            sum.copy_from_slice(of(1));
            (2..=size).for_each(|step| lanes::add(sum, of(step)));
        }
        if scale != 1.0 {
            lanes::scale(buffer, scale);
        }
        Ok(())
    }

    /// Where lengths came from that make no sense.
    fn scene_after_gather(&self) -> Scene {
        let (rank, peer, address) = (self.terms.rank, self.terms.previous, self.sockets.previous_address);
        let bytes = 8 * (self.size as u64 - 1);
        let operation = Operation::GatherBytes;
        Scene { rank, peer, address, operation, bytes_done: bytes, bytes_total: bytes }
    }

    /// Ends the ring for a reason that lies elsewhere, unless it has ended. Gives the error that counts.
    pub(crate) fn poison(&mut self, error: CollectiveError) -> CollectiveError {
        self.broken.clone().unwrap_or_else(|| self.fail(error))
    }

    /// Poisons the ring and tells the neighbours why.
    fn fail(&mut self, error: CollectiveError) -> CollectiveError {
        // An abort breaks the connections; what that looks like from here is not the cause.
        let error = if self.sockets.is_aborted() {
            CollectiveError::Aborted { rank: self.terms.rank }
        } else {
            error
        };
        tracing::debug!(%error, "the ring breaks");
        let notice = Notice::of(&error, self.terms.rank).encode(self.terms.fence);
        self.sockets.farewell(&self.wire.unsent, &notice, Waits::of(self.terms.patience).last_words);
        self.broken = Some(error.clone());
        error
    }
}

impl Collective for Ring {
    fn rank(&self) -> usize {
        self.terms.rank
    }

    fn world(&self) -> usize {
        self.size
    }

    fn transport(&self) -> &'static str {
        "tcp"
    }

    fn all_reduce(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum(buffer, 0, 1.0)
    }

    fn all_reduce_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        crate::check_length(buffer, len)?;
        let compressible = buffer.compressible(len);
        self.sum(&mut buffer[..len], compressible, 1.0)
    }

    fn average_buffer(&mut self, buffer: &mut Buffer, len: usize) -> Result<(), CollectiveError> {
        crate::check_length(buffer, len)?;
        let (compressible, scale) = (buffer.compressible(len), 1.0 / self.size as f32);
        self.sum(&mut buffer[..len], compressible, scale)
    }

    fn all_reduce_spans(
        &mut self,
        buffer: &mut [f32],
        spans: Vec<Range<usize>>,
        digest: usize,
    ) -> Result<(), CollectiveError> {
        let total = buffer.len();
        let plan = schedule::all_reduce(self.position, self.size);
        let (what, floats) = ((Operation::AllReduceRows, digest, total), Floats::new(buffer, spans));
        match self.compression {
            Compression::None => self.perform(what, &plan, &mut { floats }),
            format => self.perform(what, &plan, &mut Halves::new(floats, format)),
        }
    }

    fn all_reduce_range(&mut self, buffer: &mut Buffer, range: Range<usize>) -> Result<(), CollectiveError> {
        let compressible = buffer.compressible(range.end).saturating_sub(range.start);
        self.sum(&mut buffer[range], compressible, 1.0)
    }

    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError> {
        let total = buffer.len();
        let plan = schedule::reduce_scatter(self.position, self.size);
        let spans = spans(total, self.size);
        let own = spans[self.position].clone();
        self.perform((Operation::ReduceScatter, 0, total), &plan, &mut Floats::new(buffer, spans))?;
        Ok(own)
    }

    fn all_gather(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let total = buffer.len();
        let plan = schedule::all_gather(self.position, self.size);
        let mut floats = Floats::new(buffer, spans(total, self.size));
        self.perform((Operation::AllGather, 0, total), &plan, &mut floats)
    }

    fn broadcast(&mut self, buffer: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.size)?;
        let total = buffer.len();
        let plan = schedule::broadcast(self.position, self.size, root);
        let mut floats = Floats::new(buffer, std::iter::once(0..total).collect());
        self.perform((Operation::Broadcast, root, total), &plan, &mut floats)
    }

    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let rank = self.position;
        check_blob(&mine)?;
        let plan = schedule::all_gather(rank, self.size);
        let mut sizes = Blobs { blobs: vec![vec![0; 8]; self.size] };
        sizes.blobs[rank] = (mine.len() as u64).to_le_bytes().to_vec();
        self.perform((Operation::GatherBytes, 0, self.size), &plan, &mut sizes)?;

        let mut blobs = Vec::with_capacity(self.size);
        for (from, bytes) in sizes.blobs.iter().enumerate() {
            let size = bytes.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
            if size > MAX_BLOB {
                let detail = format!("rank {from} wants to gather {size} bytes; at most {MAX_BLOB}");
                let scene = self.scene_after_gather();
                return Err(self.fail(CollectiveError::Garbage { scene, detail }));
            }
            blobs.push(vec![0; size as usize]);
        }
        blobs[rank] = mine;
        let total = blobs.iter().map(Vec::len).sum();
        let mut blobs = Blobs { blobs };
        self.perform((Operation::GatherBytes, 0, total), &plan, &mut blobs)?;
        Ok(blobs.blobs)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.agree(Operation::Barrier, 0)
    }

    fn abort_handle(&self) -> AbortHandle {
        self.sockets.abort_handle(|| {})
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
