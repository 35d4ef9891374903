//! Who takes part in a ring, and what tells this ring from all others.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::CollectiveError;

/// Longest name of a job, in bytes of UTF-8.
pub(crate) const MAX_JOB: usize = 256;

/// Longest patience. Far beyond all use; it keeps deadlines within the clock's range.
const MAX_PATIENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Most ranks in one ring; far beyond what a flat ring is good for.
const MAX_WORLD: usize = 65_536;

/// Who takes part, as decided by the rendezvous.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Number of this rank, in `0..world`.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Ring address of each rank: where its [`crate::RingListener`] can be reached.
    pub peers: Vec<SocketAddr>,
    /// What all ranks of this ring must agree about.
    pub fence: Fence,
    /// How long a silent neighbour is waited for, in each wait; up to 30 days.
    pub patience: Duration,
    /// What is to carry the bytes.
    pub transport: Transport,
}

/// What is to carry the bytes between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Shared memory if all ranks are on one host and can have it, else TCP.
    #[default]
    Auto,
    /// TCP. If one rank wishes it, all use it.
    Tcp,
    /// Shared memory; connecting fails where it cannot be had.
    Shm,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Auto => "auto",
            Transport::Tcp => "tcp",
            Transport::Shm => "shm",
        })
    }
}

impl FromStr for Transport {
    type Err = String;

    /// Reads what [`Transport`] displays.
    fn from_str(name: &str) -> Result<Transport, String> {
        match name {
            "auto" => Ok(Transport::Auto),
            "tcp" => Ok(Transport::Tcp),
            "shm" => Ok(Transport::Shm),
            _ => Err(format!("unknown transport {name:?}; there are auto, tcp and shm")),
        }
    }
}

/// What all ranks of a ring agree about; compared when they connect.
#[derive(Clone)]
pub struct Fence {
    /// Name of the job, up to 256 bytes.
    pub job: String,
    /// Which gang of the job this is; counts up with each restart.
    pub generation: u32,
    /// Secret of the job. Proven, never sent, never printed.
    pub token: String,
    /// Digest of what the buffers mean: the order and the sizes of parameters.
    pub layout: [u8; 32],
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence")
            .field("job", &self.job)
            .field("generation", &self.generation)
            .field("token", &"(secret)")
            .field("layout", &crate::error::short_hex(&self.layout))
            .finish()
    }
}

impl Topology {
    /// The rank that this one sends to.
    pub(crate) fn next(&self) -> usize {
        (self.rank + 1) % self.world
    }

    /// The rank that this one receives from.
    pub(crate) fn previous(&self) -> usize {
        (self.rank + self.world - 1) % self.world
    }

    /// Short digest that every frame carries, so that bytes of another ring are told from ours.
    pub(crate) fn frame_fence(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update((self.fence.job.len() as u64).to_le_bytes());
        hash.update(self.fence.job.as_bytes());
        hash.update(self.fence.generation.to_le_bytes());
        hash.update((self.world as u64).to_le_bytes());
        hash.update(self.fence.layout);
        let digest: [u8; 32] = hash.finalize().into();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(short)
    }

    pub(crate) fn check(&self) -> Result<(), CollectiveError> {
        let wrong = |problem: String| Err(CollectiveError::Topology { problem });
        if self.world == 0 || self.world > MAX_WORLD {
            return wrong(format!("a world of {} ranks; allowed are 1 to {MAX_WORLD}", self.world));
        }
        if self.rank >= self.world {
            return wrong(format!("rank {} in a world of {} ranks", self.rank, self.world));
        }
        if self.peers.len() != self.world {
            return wrong(format!("{} addresses for {} ranks", self.peers.len(), self.world));
        }
        if self.patience.is_zero() {
            return wrong("no patience at all; nothing could ever arrive in time".to_owned());
        }
        if self.patience > MAX_PATIENCE {
            return wrong(format!("a patience of {:?}; at most {MAX_PATIENCE:?}", self.patience));
        }
        if self.fence.job.len() > MAX_JOB {
            return wrong(format!("a job name of {} bytes; at most {MAX_JOB}", self.fence.job.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology {
            rank: 1,
            world: 2,
            peers: vec![SocketAddr::from(([127, 0, 0, 1], 1)); 2],
            fence: Fence {
                job: "job".to_owned(),
                generation: 3,
                token: "hunter2".to_owned(),
                layout: [7; 32],
            },
            patience: Duration::from_secs(1),
            transport: Transport::Auto,
        }
    }

    #[test]
    fn contradictions_are_found() {
        assert!(topology().check().is_ok());
        assert!(Topology { rank: 2, ..topology() }.check().is_err());
        assert!(Topology { world: 3, ..topology() }.check().is_err());
        assert!(Topology { world: 0, ..topology() }.check().is_err());
        assert!(Topology { patience: Duration::ZERO, ..topology() }.check().is_err());
        assert!(Topology { patience: Duration::MAX, ..topology() }.check().is_err());
        let mut long = topology();
        long.fence.job = "j".repeat(257);
        assert!(long.check().is_err());
    }

    #[test]
    fn transports_have_names() {
        for transport in [Transport::Auto, Transport::Tcp, Transport::Shm] {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert!("rdma".parse::<Transport>().unwrap_err().contains("auto, tcp and shm"));
    }

    #[test]
    fn the_token_is_not_printed() {
        let text = format!("{:?}", topology());
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("generation: 3"), "{text}");
    }

    #[test]
    fn each_part_of_the_fence_changes_the_frames() {
        let base = topology().frame_fence();
        let changed = |change: fn(&mut Topology)| {
            let mut other = topology();
            change(&mut other);
            other.frame_fence()
        };
        assert_eq!(base, changed(|other| other.rank = 0));
        assert_ne!(base, changed(|other| other.fence.job.push('x')));
        assert_ne!(base, changed(|other| other.fence.generation += 1));
        assert_ne!(base, changed(|other| other.fence.layout[31] = 0));
        assert_ne!(base, changed(|other| other.world = 3));
    }
}
