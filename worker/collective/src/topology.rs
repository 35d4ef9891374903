//! Who takes part in a ring, and what tells this ring from all others.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::error::CollectiveError;

/// Longest name of a job, in bytes of UTF-8.
pub(crate) const MAX_JOB: usize = 256;

/// Longest patience. Far beyond all use; it keeps deadlines within the clock's range. Fixed: it is no wait.
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
    /// How gradients travel between hosts.
    pub compression: Compression,
    /// Which host this rank is on, as it tells the others; `None` finds it out. Ranks of one host share memory.
    /// For tests, in which the ranks of one machine stand for several.
    pub host: Option<String>,
}

/// What is to carry the bytes between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Shared memory inside each host and TCP between hosts, as far as there are several ranks on a host, and
    /// they can have it.
    #[default]
    Auto,
    /// TCP. If one rank wishes it, all use it.
    Tcp,
    /// Shared memory between all ranks; connecting fails where it cannot be had.
    Shm,
    /// Shared memory inside each host and TCP between hosts; connecting fails where there is but one host, or
    /// one rank on each.
    Hierarchical,
    /// TCP through rank 0, which sums for all: slow by design, to compare the others with. All ranks wish it, or
    /// none.
    Server,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Auto => "auto",
            Transport::Tcp => "tcp",
            Transport::Shm => "shm",
            Transport::Hierarchical => "hierarchical",
            Transport::Server => "server",
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
            "hierarchical" => Ok(Transport::Hierarchical),
            "server" => Ok(Transport::Server),
            _ => {
                Err(format!("unknown transport {name:?}; there are auto, tcp, shm, hierarchical and server"))
            }
        }
    }
}

/// Number format in which [`crate::Collective::all_reduce_buffer`] sends values over TCP. Sums are made in 32 bits; what
/// is sent is rounded to the nearest. Memory that ranks share is not affected: there nothing is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// IEEE 754 half precision: 11 significant bits; beyond 65,504 it is infinity.
    Fp16,
    /// bfloat16: 8 significant bits, and the range of 32-bit floats.
    Bf16,
}

const COMPRESSIONS: [(Compression, &str); 3] =
    [(Compression::None, "none"), (Compression::Fp16, "fp16"), (Compression::Bf16, "bf16")];

impl Compression {
    /// The byte that stands for it in a handshake.
    pub(crate) fn code(self) -> u8 {
        COMPRESSIONS.iter().position(|(known, _)| *known == self).unwrap_or(0) as u8
    }

    /// What a byte in a handshake stands for.
    pub(crate) fn of_code(code: u8) -> Option<Compression> {
        COMPRESSIONS.get(usize::from(code)).map(|(known, _)| *known)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(COMPRESSIONS[usize::from(self.code())].1)
    }
}

impl FromStr for Compression {
    type Err = String;

    /// Reads what [`Compression`] displays.
    fn from_str(name: &str) -> Result<Compression, String> {
        let known = COMPRESSIONS.iter().find(|(_, known)| *known == name);
        known
            .map(|(compression, _)| *compression)
            .ok_or_else(|| format!("unknown compression {name:?}; there are none, fp16 and bf16"))
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
            compression: Compression::None,
            host: None,
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
        let all =
            [Transport::Auto, Transport::Tcp, Transport::Shm, Transport::Hierarchical, Transport::Server];
        for transport in all {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert!("rdma".parse::<Transport>().unwrap_err().contains("auto, tcp, shm, hierarchical and server"));
        for compression in [Compression::None, Compression::Fp16, Compression::Bf16] {
            assert_eq!(compression.to_string().parse(), Ok(compression));
            assert_eq!(Compression::of_code(compression.code()), Some(compression));
        }
        assert!("zip".parse::<Compression>().is_err() && Compression::of_code(3).is_none());
    }

    #[test]
    fn the_token_is_not_printed() {
        let text = format!("{:?}", topology());
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("generation: 3"), "{text}");
    }
}
