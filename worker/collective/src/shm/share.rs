//! How ranks come to share memory: one makes it, the others open it through the system's list of open files,
//! and all must have succeeded.

use std::io;

use super::region::{MARK, Region, descriptor};
use crate::Collective;
use crate::error::CollectiveError;
use crate::handshake::nonce;
use crate::topology::{Topology, Transport};

/// Most ranks that share memory; more are not on one host.
const MAX_RANKS: usize = 1024;

/// What tells this host, and the numbers of its processes, from all others.
fn host() -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let processes = std::fs::read_link("/proc/self/ns/pid")?;
    Ok(format!("{} {}", boot.trim(), processes.display()))
}

/// Where a rank is and what it wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    wish: Transport,
    /// Empty where it cannot be told.
    host: String,
}

impl Offer {
    /// What this rank offers.
    pub(crate) fn of(topology: &Topology) -> Offer {
        let host = topology.host.clone().unwrap_or_else(|| host().unwrap_or_default());
        Offer { wish: topology.transport, host }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        format!("{} {}", self.wish, self.host).into_bytes()
    }

    /// What cannot be read is an offer of TCP: it cannot be wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Offer {
        let text = String::from_utf8_lossy(bytes);
        let (wish, host) = text.split_once(' ').unwrap_or((&text, ""));
        Offer { wish: wish.parse().unwrap_or(Transport::Tcp), host: host.to_owned() }
    }
}

/// Which way the bytes go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All ranks share memory.
    Shm,
    /// The ranks of each of these groups share memory. Groups are in the order of their lowest ranks.
    Hosts(Vec<Vec<usize>>),
    /// TCP, and what speaks against the others.
    Tcp(String),
}

/// Which way suits all ranks. The same on all of them, since their offers are.
pub(crate) fn way(offers: &[Offer]) -> Way {
    let wishing = |wish| offers.iter().position(|offer| offer.wish == wish);
    if let Some(rank) = wishing(Transport::Tcp) {
        return Way::Tcp(format!("rank {rank} wishes tcp"));
    }
    if let Some(rank) = offers.iter().position(|offer| offer.host.is_empty()) {
        return Way::Tcp(format!("rank {rank} cannot tell which host it is on"));
    }
    let groups = groups(offers);
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    if most > MAX_RANKS {
        return Way::Tcp(format!("{most} ranks on a host; at most {MAX_RANKS} share memory"));
    }
    if groups.len() == 1 {
        return match wishing(Transport::Hierarchical) {
            Some(_) => Way::Tcp("all ranks are on one host".to_owned()),
            None => Way::Shm,
        };
    }
    if most > 1 && wishing(Transport::Shm).is_none() {
        return Way::Hosts(groups);
    }
    let elsewhere = groups[1].first().copied().unwrap_or_default();
    Way::Tcp(format!("ranks 0 and {elsewhere} are on different hosts, or in different process namespaces"))
}

/// Ranks by host.
fn groups(offers: &[Offer]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (rank, offer) in offers.iter().enumerate() {
        match groups.iter_mut().find(|group| offers[group[0]].host == offer.host) {
            Some(group) => group.push(rank),
            None => groups.push(vec![rank]),
        }
    }
    groups
}

/// Memory that all ranks of a host map, or why they do not have it, which is the same on all ranks.
pub(crate) type Shared = Result<Region, String>;

/// Shares `bytes` new bytes among all ranks of `gang` that have the same `leader`, which is one of them. Either all
/// ranks get them or none does.
///
/// # Errors
/// What broke the gang.
pub(crate) fn share(
    gang: &mut dyn Collective,
    leader: usize,
    bytes: usize,
) -> Result<Shared, CollectiveError> {
    let made = (gang.rank() == leader).then(|| make(bytes));
    let invitation = match &made {
        Some(Ok((_, _, invitation))) => invitation.to_vec(),
        _ => Vec::new(),
    };
    let invitations = gang.gather_bytes(invitation)?;
    let mapped = match made {
        // The file stays open until all have voted: it is what they open.
        Some(made) => made.map(|(file, region, _)| (Some(file), region)),
        None => {
            accept(invitations.get(leader).map_or(&[], Vec::as_slice), bytes).map(|region| (None, region))
        }
    };
    let vote = match &mapped {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().into_bytes(),
    };
    let votes = gang.gather_bytes(vote)?;
    let against = votes.iter().enumerate().find(|(_, vote)| !vote.is_empty());
    Ok(match (against, mapped) {
        (Some((rank, reason)), _) => Err(format!("rank {rank}: {}", String::from_utf8_lossy(reason))),
        (None, Ok((_, region))) => Ok(region),
        // An error without a text.
        (None, Err(_)) => Err(format!("rank {}", gang.rank())),
    })
}

/// Process, descriptor and mark: how the others find the memory.
const INVITATION: usize = 4 + 4 + MARK;

fn make(bytes: usize) -> io::Result<(std::os::fd::OwnedFd, Region, [u8; INVITATION])> {
    let mark: [u8; MARK] = nonce()?;
    let (file, region) = Region::create(bytes, &mark)?;
    let mut invitation = [0; INVITATION];
    invitation[..4].copy_from_slice(&std::process::id().to_le_bytes());
    invitation[4..8].copy_from_slice(&descriptor(&file).to_le_bytes());
    invitation[8..].copy_from_slice(&mark);
    Ok((file, region, invitation))
}

fn accept(invitation: &[u8], bytes: usize) -> io::Result<Region> {
    let parts = invitation.split_first_chunk::<4>().and_then(|(pid, rest)| {
        let (descriptor, mark) = rest.split_first_chunk::<4>()?;
        Some((u32::from_le_bytes(*pid), i32::from_le_bytes(*descriptor), mark.try_into().ok()?))
    });
    let Some((pid, descriptor, mark)) = parts else {
        return Err(io::Error::other("the first rank of the host made no memory to share"));
    };
    Region::open(pid, descriptor, bytes, &mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fence, RingListener};

    fn offer(wish: Transport, host: &str) -> Offer {
        Offer { wish, host: host.to_owned() }
    }

    #[test]
    fn memory_is_shared_on_one_host_where_nobody_minds() {
        let (auto, shm) = (offer(Transport::Auto, "a b"), offer(Transport::Shm, "a b"));
        assert_eq!(way(&[auto.clone(), shm, auto.clone()]), Way::Shm);
        let found = |other| match way(&[auto.clone(), other]) {
            Way::Tcp(reason) => reason,
            other => format!("{other:?}"),
        };
        assert!(found(offer(Transport::Tcp, "a b")).contains("rank 1 wishes tcp"));
        assert!(found(offer(Transport::Shm, "a c")).contains("ranks 0 and 1 are on different hosts"));
        assert!(found(offer(Transport::Auto, "a c")).contains("ranks 0 and 1 are on different hosts"));
        assert!(found(offer(Transport::Auto, "")).contains("rank 1 cannot tell"));
        assert!(found(offer(Transport::Hierarchical, "a b")).contains("all ranks are on one host"));
        assert!(
            matches!(way(&vec![auto.clone(); MAX_RANKS + 1]), Way::Tcp(reason) if reason.contains("at most"))
        );
    }

    #[test]
    fn ranks_of_a_host_need_not_be_neighbours() {
        let on = |host| offer(Transport::Auto, host);
        let groups = vec![vec![0, 3], vec![1, 2, 5], vec![4]];
        assert_eq!(way(&[on("a"), on("b"), on("b"), on("a"), on("c"), on("b")]), Way::Hosts(groups));
        let insists = offer(Transport::Shm, "b");
        assert!(matches!(way(&[on("a"), on("a"), insists]), Way::Tcp(reason) if reason.contains("0 and 2")));
    }

    #[test]
    fn an_offer_survives_the_wire_and_garbage_is_tcp() {
        for wish in [Transport::Auto, Transport::Tcp, Transport::Shm] {
            let offer = offer(wish, &host().unwrap());
            assert_eq!(Offer::decode(&offer.encode()), offer);
        }
        assert_eq!(Offer::decode(b"\xff").wish, Transport::Tcp);
        assert!(host().unwrap().len() > 30);
    }

    #[test]
    fn what_one_rank_cannot_have_none_has_and_the_gang_goes_on() {
        let listeners: Vec<_> = (0..3).map(|_| RingListener::bind([127, 0, 0, 1].into()).unwrap()).collect();
        let peers: Vec<_> = listeners.iter().map(RingListener::local_addr).collect();
        let work = |rank: usize, listener| {
            let fence = Fence { job: "j".into(), generation: 1, token: "t".into(), layout: [0; 32] };
            let (patience, transport) = (std::time::Duration::from_secs(20), Transport::Tcp);
            let (compression, host) = Default::default();
            let peers = peers.clone();
            let topology = Topology { rank, world: 3, peers, fence, patience, transport, compression, host };
            let mut gang = crate::connect(listener, topology).unwrap();
            // Ranks that count on different sizes do not get each other's memory.
            let refused =
                share(&mut *gang, 0, if rank == 1 { 100_000 } else { 10_000 }).unwrap().unwrap_err();
            assert!(refused.starts_with("rank 1: "), "{refused}");
            let refused = share(&mut *gang, 0, usize::MAX).unwrap().unwrap_err();
            assert!(refused.starts_with("rank 0: out of memory"), "{refused}");
            assert!(share(&mut *gang, 0, 10_000).unwrap().unwrap().bytes() >= 10_000);
        };
        std::thread::scope(|scope| {
            for (rank, listener) in listeners.into_iter().enumerate() {
                scope.spawn(move || work(rank, listener));
            }
        });
    }

    #[test]
    fn an_invitation_that_says_nothing_is_declined() {
        assert!(accept(&[], 10).is_err() && accept(&[1; 7], 10).is_err() && accept(&[0; 41], 10).is_err());
        let (_file, _region, invitation) = make(10).unwrap();
        accept(&invitation, 10).unwrap();
    }
}
