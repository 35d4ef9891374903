//! What can go wrong, with enough to say who is to blame.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

/// Which operation was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sum to everybody.
    AllReduce,
    /// Sum of rows of a table to everybody.
    AllReduceRows,
    /// Sum, each rank its own span.
    ReduceScatter,
    /// Spans to everybody.
    AllGather,
    /// One rank's buffer to everybody.
    Broadcast,
    /// Everybody's bytes to everybody.
    GatherBytes,
    /// Meeting of all ranks; also the last act of connecting.
    Barrier,
    /// Making of a buffer that all ranks of a host see.
    MakeBuffer,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::AllReduce => "all-reduce",
            Operation::AllReduceRows => "all-reduce of rows",
            Operation::ReduceScatter => "reduce-scatter",
            Operation::AllGather => "all-gather",
            Operation::Broadcast => "broadcast",
            Operation::GatherBytes => "gather of bytes",
            Operation::Barrier => "barrier",
            Operation::MakeBuffer => "making of a buffer",
        })
    }
}

/// Where an operation broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The rank that noticed.
    pub rank: usize,
    /// The neighbour on the connection that broke.
    pub peer: usize,
    /// Address of that connection's other end.
    pub address: SocketAddr,
    /// What was under way.
    pub operation: Operation,
    /// Bytes of payload that had passed over that connection in this operation.
    pub bytes_done: u64,
    /// Bytes of payload that should have passed over it.
    pub bytes_total: u64,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rank {}: {} with rank {} at {}, after {} of {} bytes",
            self.rank, self.operation, self.peer, self.address, self.bytes_done, self.bytes_total
        )
    }
}

/// One thing about which two neighbours do not agree. Tokens are never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// They work for different jobs.
    Job {
        /// Name of this side's job.
        here: String,
        /// Name of the other side's job.
        there: String,
    },
    /// One of them belongs to an older gang of the job.
    Generation {
        /// Generation of this side.
        here: u32,
        /// Generation of the other side.
        there: u32,
    },
    /// The other side did not prove that it knows the token of this job.
    Token,
    /// They count a different number of ranks.
    World {
        /// World of this side.
        here: usize,
        /// World of the other side.
        there: usize,
    },
    /// The other side is not the neighbour that belongs here.
    Rank {
        /// The rank expected at the other side.
        here: usize,
        /// The rank that it says to be.
        there: usize,
    },
    /// Their buffers mean different things.
    Layout {
        /// Layout digest of this side.
        here: [u8; 32],
        /// Layout digest of the other side.
        there: [u8; 32],
    },
    /// They send gradients in different formats.
    Compression {
        /// Format of this side.
        here: crate::Compression,
        /// Format of the other side; `None` where it is none that we know.
        there: Option<crate::Compression>,
    },
}

/// The first digits of a digest: enough to compare by eye.
pub(crate) fn short_hex(digest: &[u8; 32]) -> String {
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Job { here, there } => write!(f, "job (here {here:?}, there {there:?})"),
            Difference::Generation { here, there } => {
                write!(f, "generation (here {here}, there {there})")
            }
            Difference::Token => f.write_str("token (the other side does not know ours)"),
            Difference::World { here, there } => write!(f, "world (here {here} ranks, there {there})"),
            Difference::Rank { here, there } => write!(f, "rank (expected {here}, found {there})"),
            Difference::Layout { here, there } => {
                write!(f, "layout (here {}, there {})", short_hex(here), short_hex(there))
            }
            Difference::Compression { here, there: Some(there) } => {
                write!(f, "compression (here {here}, there {there})")
            }
            Difference::Compression { here, there: None } => {
                write!(f, "compression (here {here}, there one that is not known here)")
            }
        }
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why an operation, or connecting, failed. It can be cloned, since a broken ring gives it again and again.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// No port could be had for the ring.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The interface that was asked for.
        address: IpAddr,
        /// What the system says.
        cause: Arc<io::Error>,
    },
    /// The topology contradicts itself.
    #[error("unusable topology: {problem}")]
    Topology {
        /// What is wrong with it.
        problem: String,
    },
    /// The caller's mistake, found before anything was sent: the ring is still whole.
    #[error("{problem}")]
    Usage {
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A neighbour could not be had in time.
    #[error("rank {rank}: no connection with rank {peer} at {address} within {waited:.1?}: {detail}")]
    Connect {
        /// This rank.
        rank: usize,
        /// The neighbour.
        peer: usize,
        /// The neighbour's ring address.
        address: SocketAddr,
        /// How long it was tried.
        waited: Duration,
        /// The last thing that was seen.
        detail: String,
    },
    /// The transport that was asked for cannot be had.
    #[error("rank {rank}: no {wish} transport: {problem}; transport `auto` takes what there is")]
    Transport {
        /// This rank.
        rank: usize,
        /// What was asked for.
        wish: crate::Transport,
        /// What is in the way.
        problem: String,
    },
    /// NCCL cannot be loaded.
    #[error(
        "NCCL (libnccl.so.2) cannot be loaded: {tried}; scripts/setup.sh --cuda brings it, or set comm.backend: ring"
    )]
    NcclMissing {
        /// What the dynamic loader said of each place.
        tried: String,
    },
    /// NCCL failed.
    #[error("rank {rank}: NCCL: {problem}")]
    Nccl {
        /// This rank.
        rank: usize,
        /// Its words, or what it did not do in time.
        problem: String,
    },
    /// The other side of a new connection belongs to something else.
    #[error("rank {rank}: refused the connection with rank {peer} at {address}: different {}", list(.differences))]
    Refused {
        /// This rank.
        rank: usize,
        /// The neighbour that was expected.
        peer: usize,
        /// Address of the other side.
        address: SocketAddr,
        /// All that differs.
        differences: Vec<Difference>,
    },
    /// A neighbour's connection ended: its process died, or it gave up without a word.
    #[error("{scene}: connection lost: {cause}")]
    PeerLost {
        /// Where it happened.
        scene: Scene,
        /// End of file, reset, and so on.
        cause: String,
    },
    /// A neighbour was silent for too long.
    #[error("{scene}: stalled, nothing passed for {waited:.1?}")]
    PeerStalled {
        /// Where it happened.
        scene: Scene,
        /// How long nothing passed.
        waited: Duration,
    },
    /// A neighbour sent bytes that are no frame of this ring.
    #[error("{scene}: garbage received: {detail}")]
    Garbage {
        /// Where it happened.
        scene: Scene,
        /// What is wrong with the bytes.
        detail: String,
    },
    /// A neighbour is in another operation, or in the same with another length or root.
    #[error("{scene}: ranks disagree about the operation: {detail}")]
    Disagreement {
        /// Where it happened.
        scene: Scene,
        /// What each of the two is doing.
        detail: String,
    },
    /// Another rank failed first, and passed its cause on.
    #[error("rank {rank}: {operation} ended by rank {reporter}: {cause}")]
    Reported {
        /// This rank.
        rank: usize,
        /// What was under way here.
        operation: Operation,
        /// The rank that failed first.
        reporter: usize,
        /// The rank that it holds responsible.
        blamed: usize,
        /// Its error.
        cause: String,
    },
    /// [`crate::AbortHandle::abort`] was called here.
    #[error("rank {rank}: aborted")]
    Aborted {
        /// This rank.
        rank: usize,
    },
    /// This process failed by itself: no thread, no random numbers, no socket option.
    #[error("rank {rank}: {action}: {cause}")]
    Local {
        /// This rank.
        rank: usize,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        cause: Arc<io::Error>,
    },
    /// Code on the background thread panicked.
    #[error("rank {rank}: panic on the collective's thread: {message}")]
    Panicked {
        /// This rank.
        rank: usize,
        /// The message of the panic.
        message: String,
    },
}

impl CollectiveError {
    /// The rank held responsible, as far as this rank can tell. `None` where no rank of the ring is.
    #[must_use]
    pub fn blamed(&self) -> Option<usize> {
        match self {
            CollectiveError::Connect { peer, .. } | CollectiveError::Refused { peer, .. } => Some(*peer),
            CollectiveError::PeerLost { scene, .. }
            | CollectiveError::PeerStalled { scene, .. }
            | CollectiveError::Garbage { scene, .. }
            | CollectiveError::Disagreement { scene, .. } => Some(scene.peer),
            CollectiveError::Reported { blamed, .. } => Some(*blamed),
            CollectiveError::Aborted { rank }
            | CollectiveError::Local { rank, .. }
            | CollectiveError::Panicked { rank, .. } => Some(*rank),
            CollectiveError::Bind { .. }
            | CollectiveError::Topology { .. }
            | CollectiveError::Transport { .. }
            | CollectiveError::NcclMissing { .. }
            | CollectiveError::Nccl { .. }
            | CollectiveError::Usage { .. } => None,
        }
    }

    /// `From` without the rank would lose it; so local failures are made here.
    pub(crate) fn local(rank: usize, action: &'static str, cause: impl Into<io::Error>) -> CollectiveError {
        CollectiveError::Local { rank, action, cause: Arc::new(cause.into()) }
    }
}
