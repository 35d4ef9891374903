//! From a ring of all ranks to what suits them best.

use crate::error::CollectiveError;
use crate::ring::Ring;
use crate::shm::share::{Offer, Way, way};
use crate::tcp::RingListener;
use crate::topology::Transport;
use crate::{Collective, Topology, hosts, shm};

/// Finds out where the ranks of `ring` are and what they wish, and moves them there if they can; else they stay.
///
/// # Errors
/// [`CollectiveError::Transport`] if this rank asked for what cannot be had, or what broke the ring.
pub(crate) fn upgrade(
    mut ring: Ring,
    listener: &RingListener,
    topology: &Topology,
) -> Result<Box<dyn Collective>, CollectiveError> {
    let (rank, wish) = (topology.rank, topology.transport);
    let offers = ring.gather_bytes(Offer::of(topology).encode())?;
    let offers: Vec<_> = offers.iter().map(|bytes| Offer::decode(bytes)).collect();
    let stays = match way(&offers) {
        Way::Shm => match shm::start(ring, topology)? {
            Ok(shm) => return Ok(Box::new(shm)),
            Err(stays) => stays,
        },
        Way::Hosts(groups) => match hosts::start(ring, listener, topology, &groups)? {
            Ok(hosts) => return Ok(Box::new(hosts)),
            Err(stays) => stays,
        },
        Way::Tcp(reason) => (ring, reason),
    };
    let (ring, problem) = stays;
    if matches!(wish, Transport::Shm | Transport::Hierarchical) {
        return Err(CollectiveError::Transport { rank, wish, problem });
    }
    tracing::info!(rank, reason = problem, "all-reduce goes over TCP");
    Ok(Box::new(ring))
}
