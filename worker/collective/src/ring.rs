//! The ring over TCP: plans, executed one after the other, until the first error.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{CollectiveError, Operation, Scene};
use crate::exchange::{Call, Exchange, Terms};
use crate::frame::Notice;
use crate::link::Sockets;
use crate::payload::{Blobs, Floats, Payload};
use crate::schedule::{self, Plan, spans};
use crate::wire::Wire;
use crate::{AbortHandle, Collective, Topology};

/// Longest blob in a gather of bytes. Bounds what a neighbour can make this rank allocate.
pub(crate) const MAX_BLOB: u64 = 1 << 32;

/// Longest time that a failing rank spends on telling its neighbours.
const FAREWELL: Duration = Duration::from_millis(250);

/// One rank of a ring over TCP.
pub(crate) struct Ring {
    terms: Terms,
    world: usize,
    sockets: Arc<Sockets>,
    wire: Wire,
    /// Operations begun so far.
    sequence: u64,
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
    pub(crate) fn new(sockets: Sockets, topology: &Topology) -> Result<Ring, CollectiveError> {
        let terms = Terms {
            rank: topology.rank,
            next: topology.next(),
            previous: topology.previous(),
            fence: topology.frame_fence(),
            patience: topology.patience,
        };
        let world = topology.world;
        Ok(Ring { terms, world, sockets: Arc::new(sockets), wire: Wire::new(), sequence: 0, broken: None })
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
        self.sequence += 1;
        let call = Call { operation, root, total: total as u64, sequence: self.sequence };
        let outcome = if self.sockets.is_aborted() {
            Err(CollectiveError::Aborted { rank: self.terms.rank })
        } else {
            Exchange::new(self.terms, &self.sockets, &mut self.wire, call, plan, payload).run()
        };
        outcome.map_err(|error| self.fail(error))
    }

    /// Where lengths came from that make no sense.
    fn scene_after_gather(&self) -> Scene {
        let (rank, peer, address) = (self.terms.rank, self.terms.previous, self.sockets.previous_address);
        let bytes = 8 * (self.world as u64 - 1);
        let operation = Operation::GatherBytes;
        Scene { rank, peer, address, operation, bytes_done: bytes, bytes_total: bytes }
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
        self.sockets.farewell(self.wire.unsent(), &notice, FAREWELL.min(self.terms.patience));
        self.broken = Some(error.clone());
        error
    }
}

impl Collective for Ring {
    fn rank(&self) -> usize {
        self.terms.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn transport(&self) -> &'static str {
        "tcp"
    }

    fn all_reduce(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let total = buffer.len();
        let plan = schedule::all_reduce(self.terms.rank, self.world);
        let mut floats = Floats::new(buffer, spans(total, self.world));
        self.perform((Operation::AllReduce, 0, total), &plan, &mut floats)
    }

    fn all_reduce_spans(
        &mut self,
        buffer: &mut [f32],
        spans: Vec<Range<usize>>,
        digest: usize,
    ) -> Result<(), CollectiveError> {
        let total = buffer.len();
        let plan = schedule::all_reduce(self.terms.rank, self.world);
        self.perform((Operation::AllReduceRows, digest, total), &plan, &mut Floats::new(buffer, spans))
    }

    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError> {
        let total = buffer.len();
        let plan = schedule::reduce_scatter(self.terms.rank, self.world);
        let spans = spans(total, self.world);
        let own = spans[self.terms.rank].clone();
        self.perform((Operation::ReduceScatter, 0, total), &plan, &mut Floats::new(buffer, spans))?;
        Ok(own)
    }

    fn all_gather(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let total = buffer.len();
        let plan = schedule::all_gather(self.terms.rank, self.world);
        let mut floats = Floats::new(buffer, spans(total, self.world));
        self.perform((Operation::AllGather, 0, total), &plan, &mut floats)
    }

    fn broadcast(&mut self, buffer: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world)?;
        let total = buffer.len();
        let plan = schedule::broadcast(self.terms.rank, self.world, root);
        let mut floats = Floats::new(buffer, std::iter::once(0..total).collect());
        self.perform((Operation::Broadcast, root, total), &plan, &mut floats)
    }

    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let rank = self.terms.rank;
        check_blob(&mine)?;
        let plan = schedule::all_gather(rank, self.world);
        let mut sizes = Blobs { blobs: vec![vec![0; 8]; self.world] };
        sizes.blobs[rank] = (mine.len() as u64).to_le_bytes().to_vec();
        self.perform((Operation::GatherBytes, 0, self.world), &plan, &mut sizes)?;

        let mut blobs = Vec::with_capacity(self.world);
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
        // An empty gather: after its last step every rank has heard, at second hand, of all others.
        let plan = schedule::all_gather(self.terms.rank, self.world);
        let mut nothing = Blobs { blobs: vec![Vec::new(); self.world] };
        self.perform((Operation::Barrier, 0, 0), &plan, &mut nothing)
    }

    fn abort_handle(&self) -> AbortHandle {
        self.sockets.abort_handle(|| {})
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
