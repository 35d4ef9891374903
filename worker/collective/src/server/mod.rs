//! All-reduce through a central server, in the manner of a key-value store of parameters: every rank sends its values to
//! rank 0, which sums them in the order of ranks and sends the sums back.
//!
//! It is here to be compared with, and slow by design: rank 0's link carries every other rank's values twice, so the time
//! grows with the number of ranks, where a ring's does not.
//!
//! Every rank has a connection of its own with rank 0, a ring of two with the handshake, frames, deadlines and last
//! words of all rings. All but sums goes over the ring of all ranks.

use std::ops::Range;
use std::thread;

use crate::circle::Circle;
use crate::error::CollectiveError;
use crate::ring::{Ring, check_blob, check_root};
use crate::tcp::{self, RingListener};
use crate::{AbortHandle, Collective, Topology, lanes};

/// Floats that travel at a time: it bounds what the server holds of each rank.
const PIECE: usize = 1 << 20;

/// One rank of a gang with a server, which is rank 0.
pub(crate) struct Server {
    /// All ranks.
    flat: Ring,
    /// On rank 0 a ring of two with every other rank, in their order; on those the one with rank 0.
    lines: Vec<Ring>,
    /// What each of the other ranks has sent, on rank 0.
    received: Vec<Vec<f32>>,
    rank: usize,
    /// The first error; the answer to everything after it.
    broken: Option<CollectiveError>,
}

/// Connects all ranks of `flat` with rank 0.
///
/// # Errors
/// What broke the ring, or a connection that cannot be had.
pub(crate) fn start(
    mut flat: Ring,
    listener: &RingListener,
    topology: &Topology,
) -> Result<Server, CollectiveError> {
    let rank = topology.rank;
    let mut lines = Vec::new();
    for other in 1..topology.world {
        if rank == 0 || rank == other {
            let mut circle =
                Circle::among(topology, vec![0, other], usize::from(rank != 0), &format!("server {other}"));
            if rank != 0 {
                // The server finds out first which rank is late, and tells the others.
                circle.patience += circle.patience / 2;
            }
            let sockets = tcp::establish(listener, &circle).map_err(|error| flat.poison(error))?;
            lines.push(Ring::new(sockets.aborted_with(flat.sockets()), &circle));
        }
        // One after the other: rank 0 has one door for all.
        flat.barrier()?;
    }
    let received = vec![Vec::new(); if rank == 0 { lines.len() } else { 0 }];
    Ok(Server { flat, lines, received, rank, broken: None })
}

impl Server {
    /// Does `work` unless something has failed before; ends all connections if it fails.
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Server) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        work(self).map_err(|error| {
            if matches!(error, CollectiveError::Usage { .. }) {
                return error;
            }
            for line in &mut self.lines {
                line.poison(error.clone());
            }
            let error = self.flat.poison(error);
            self.broken = Some(error.clone());
            error
        })
    }

    /// Sums a piece of a buffer.
    fn sum(&mut self, piece: &mut [f32]) -> Result<(), CollectiveError> {
        if self.rank == 0 {
            self.serve(piece)
        } else {
            self.lines.iter_mut().try_for_each(|line| {
                line.broadcast(piece, 1)?;
                line.broadcast(piece, 0)
            })
        }
    }

    /// Receives everybody's piece, sums in the order of ranks, and sends everybody the sums.
    fn serve(&mut self, piece: &mut [f32]) -> Result<(), CollectiveError> {
        for received in &mut self.received {
            received.resize(piece.len(), 0.0);
        }
        self.with_all(|line, values| line.broadcast(values, 1))?;
        for received in &self.received {
            lanes::add(piece, received);
        }
        for received in &mut self.received {
            received.copy_from_slice(piece);
        }
        self.with_all(|line, values| line.broadcast(values, 0))
    }

    /// Does the same with all other ranks at once. The first error that is no echo of another counts.
    fn with_all(
        &mut self,
        work: impl Fn(&mut Ring, &mut [f32]) -> Result<(), CollectiveError> + Sync,
    ) -> Result<(), CollectiveError> {
        let work = &work;
        let pairs = self.lines.iter_mut().zip(&mut self.received);
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                pairs.map(|(line, values)| scope.spawn(move || work(line, values))).collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        results.into_iter().try_for_each(|result| {
            result.unwrap_or_else(|_| {
                Err(CollectiveError::Panicked { rank: 0, message: "a server's thread".into() })
            })
        })
    }
}

impl Collective for Server {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.flat.world()
    }

    fn transport(&self) -> &'static str {
        "server"
    }

    fn all_reduce(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let total = buffer.len();
        self.attempt(|server| {
            (0..total.div_ceil(PIECE).max(1)).try_for_each(|piece| {
                let start = piece * PIECE;
                server.sum(&mut buffer[start..(start + PIECE).min(total)])
            })
        })
    }

    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError> {
        self.attempt(|server| server.flat.reduce_scatter(buffer))
    }

    fn all_gather(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        self.attempt(|server| server.flat.all_gather(buffer))
    }

    fn broadcast(&mut self, buffer: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world())?;
        self.attempt(|server| server.flat.broadcast(buffer, root))
    }

    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_blob(&mine)?;
        self.attempt(|server| server.flat.gather_bytes(mine))
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.attempt(|server| server.flat.barrier())
    }

    fn abort_handle(&self) -> AbortHandle {
        let lines: Vec<_> = self.lines.iter().map(|line| std::sync::Arc::downgrade(line.sockets())).collect();
        self.flat.sockets().abort_handle(move || {
            lines.iter().filter_map(std::sync::Weak::upgrade).for_each(|sockets| sockets.end());
        })
    }
}
