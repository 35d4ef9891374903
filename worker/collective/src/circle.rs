//! A ring: which ranks stand in it, in which order. All of a world, or one of each host.

use std::net::SocketAddr;

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::topology::{Compression, Fence, Topology};

/// Longest word that is put behind the name of the job, to tell rings of one job apart.
const MAX_LABEL: usize = 32;

/// Longest name of a job on the wire.
pub(crate) const MAX_NAME: usize = crate::topology::MAX_JOB + MAX_LABEL;

/// One ring, seen from one of its ranks. Ranks are numbered as in the whole world.
#[derive(Clone, Debug)]
pub(crate) struct Circle {
    /// This rank.
    pub(crate) rank: usize,
    /// Number of all ranks, in this ring or not.
    pub(crate) world: usize,
    /// Ranks round the ring: each sends to the next one.
    pub(crate) members: Vec<usize>,
    /// Place of this rank among the members.
    pub(crate) position: usize,
    /// Ring address of each rank of the world.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) fence: Fence,
    pub(crate) patience: Duration,
    pub(crate) compression: Compression,
}

impl Circle {
    /// All ranks of the world, in order.
    pub(crate) fn of_all(topology: &Topology) -> Circle {
        Circle {
            rank: topology.rank,
            world: topology.world,
            members: (0..topology.world).collect(),
            position: topology.rank,
            peers: topology.peers.clone(),
            fence: topology.fence.clone(),
            patience: topology.patience,
            compression: topology.compression,
        }
    }

    /// Some ranks, of which this one is at `position`. The label keeps guests of another ring out.
    pub(crate) fn among(topology: &Topology, members: Vec<usize>, position: usize, label: &str) -> Circle {
        let mut circle = Circle { members, position, ..Circle::of_all(topology) };
        circle.fence.job = format!("{} {label}", circle.fence.job);
        circle
    }

    /// Number of ranks in this ring.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// The rank that this one sends to.
    pub(crate) fn next(&self) -> usize {
        self.members[(self.position + 1) % self.size()]
    }

    /// The rank that this one receives from.
    pub(crate) fn previous(&self) -> usize {
        self.members[(self.position + self.size() - 1) % self.size()]
    }

    /// How many ranks of the world have this rank's address, itself included: they share its cores.
    pub(crate) fn on_this_host(&self) -> usize {
        let here = self.peers[self.rank].ip();
        self.peers.iter().filter(|peer| peer.ip() == here).count()
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Transport;

    fn topology() -> Topology {
        Topology {
            rank: 1,
            world: 5,
            peers: (1..6).map(|last| SocketAddr::from(([127, 0, 0, last], 1))).collect(),
            fence: Fence { job: "job".into(), generation: 3, token: "secret".into(), layout: [7; 32] },
            patience: Duration::from_secs(1),
            transport: Transport::Auto,
            compression: Compression::None,
            host: None,
        }
    }

    #[test]
    fn neighbours_go_round() {
        let all = Circle::of_all(&topology());
        assert_eq!((all.size(), all.previous(), all.next(), all.on_this_host()), (5, 0, 2, 1));
        let some = Circle::among(&topology(), vec![1, 4], 0, "between hosts");
        assert_eq!((some.size(), some.previous(), some.next()), (2, 4, 4));
    }

    #[test]
    fn each_part_of_the_fence_changes_the_frames() {
        let base = Circle::of_all(&topology()).frame_fence();
        let changed = |change: fn(&mut Topology)| {
            let mut other = topology();
            change(&mut other);
            Circle::of_all(&other).frame_fence()
        };
        assert_eq!(base, changed(|other| other.rank = 0));
        assert_ne!(base, changed(|other| other.fence.job.push('x')));
        assert_ne!(base, changed(|other| other.fence.generation += 1));
        assert_ne!(base, changed(|other| other.fence.layout[31] = 0));
        assert_ne!(base, changed(|other| other.world = 3));
        assert_ne!(base, Circle::among(&topology(), vec![1, 4], 0, "between hosts").frame_fence());
    }
}
