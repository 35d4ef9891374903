//! How ranks come to share memory: one makes it, the others open it through the system's list of open files,
//! and all must have succeeded.

use std::io;

use super::region::{MARK, Region, descriptor};
use crate::Collective;
use crate::error::CollectiveError;
use crate::handshake::nonce;
use crate::topology::Transport;

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
struct Offer {
    wish: Transport,
    /// Empty where it cannot be told.
    host: String,
}

impl Offer {
    fn encode(&self) -> Vec<u8> {
        format!("{} {}", self.wish, self.host).into_bytes()
    }

    /// What cannot be read is an offer of TCP: it cannot be wrong.
    fn decode(bytes: &[u8]) -> Offer {
        let text = String::from_utf8_lossy(bytes);
        let (wish, host) = text.split_once(' ').unwrap_or((&text, ""));
        Offer { wish: wish.parse().unwrap_or(Transport::Tcp), host: host.to_owned() }
    }
}

/// What speaks against shared memory, if anything does. The same on all ranks, since their offers are.
fn obstacle(offers: &[Offer]) -> Option<String> {
    if let Some(rank) = offers.iter().position(|offer| offer.wish == Transport::Tcp) {
        return Some(format!("rank {rank} wishes tcp"));
    }
    if offers.len() > MAX_RANKS {
        return Some(format!("{} ranks; at most {MAX_RANKS} share memory", offers.len()));
    }
    if let Some(rank) = offers.iter().position(|offer| offer.host.is_empty()) {
        return Some(format!("rank {rank} cannot tell which host it is on"));
    }
    let first = offers.first().map(|offer| &offer.host);
    let elsewhere = offers.iter().position(|offer| Some(&offer.host) != first)?;
    Some(format!("ranks 0 and {elsewhere} are on different hosts, or in different process namespaces"))
}

/// Memory that all ranks of a gang map, or why they do not have it, which is the same on all ranks.
pub(crate) type Shared = Result<Region, String>;

/// Finds out if the ranks of `gang` can and want to share memory, and then shares `bytes` bytes.
///
/// # Errors
/// What broke the gang.
pub(crate) fn settle(
    gang: &mut dyn Collective,
    wish: Transport,
    bytes: usize,
) -> Result<Shared, CollectiveError> {
    let mine = Offer { wish, host: host().unwrap_or_default() };
    let offers: Vec<_> = gang.gather_bytes(mine.encode())?.iter().map(|bytes| Offer::decode(bytes)).collect();
    match obstacle(&offers) {
        Some(obstacle) => Ok(Err(obstacle)),
        None => share(gang, bytes),
    }
}

/// Shares `bytes` new bytes among all ranks of `gang`, or among none.
///
/// # Errors
/// What broke the gang.
pub(crate) fn share(gang: &mut dyn Collective, bytes: usize) -> Result<Shared, CollectiveError> {
    let made = (gang.rank() == 0).then(|| make(bytes));
    let invitation = match &made {
        Some(Ok((_, _, invitation))) => invitation.to_vec(),
        _ => Vec::new(),
    };
    let invitations = gang.gather_bytes(invitation)?;
    let mapped = match made {
        // The file stays open until all have voted: it is what they open.
        Some(made) => made.map(|(file, region, _)| (Some(file), region)),
        None => accept(invitations.first().map_or(&[], Vec::as_slice), bytes).map(|region| (None, region)),
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
        return Err(io::Error::other("rank 0 made no memory to share"));
    };
    Region::open(pid, descriptor, bytes, &mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fence, RingListener, Topology};

    fn offer(wish: Transport, host: &str) -> Offer {
        Offer { wish, host: host.to_owned() }
    }

    #[test]
    fn memory_is_shared_on_one_host_where_nobody_minds() {
        let auto = offer(Transport::Auto, "a b");
        let shm = offer(Transport::Shm, "a b");
        assert_eq!(obstacle(&[auto.clone(), shm.clone(), auto.clone()]), None);
        let found = |other| obstacle(&[auto.clone(), other]).unwrap();
        assert!(found(offer(Transport::Tcp, "a b")).contains("rank 1 wishes tcp"));
        assert!(found(offer(Transport::Shm, "a c")).contains("ranks 0 and 1 are on different hosts"));
        assert!(found(offer(Transport::Auto, "")).contains("rank 1 cannot tell"));
        assert!(obstacle(&vec![auto.clone(); MAX_RANKS + 1]).unwrap().contains("at most"));
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
            let topology = Topology { rank, world: 3, peers: peers.clone(), fence, patience, transport };
            let mut gang = crate::connect(listener, topology).unwrap();
            // Ranks that count on different sizes do not get each other's memory.
            let refused = share(&mut *gang, if rank == 1 { 100_000 } else { 10_000 }).unwrap().unwrap_err();
            assert!(refused.starts_with("rank 1: "), "{refused}");
            let refused = share(&mut *gang, usize::MAX).unwrap().unwrap_err();
            assert!(refused.starts_with("rank 0: out of memory"), "{refused}");
            assert!(share(&mut *gang, 10_000).unwrap().unwrap().bytes() >= 10_000);
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
