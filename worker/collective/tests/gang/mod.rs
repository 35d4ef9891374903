//! Worlds of several ranks in one process, connected over loopback.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod process;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use squad_collective::{
    Collective, CollectiveError, Compression, Fence, RingListener, Topology, Transport, connect,
};

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn fence() -> Fence {
    Fence { job: "gang".to_owned(), generation: 7, token: "open sesame".to_owned(), layout: [5; 32] }
}

pub(crate) fn listeners(world: usize) -> (Vec<RingListener>, Vec<SocketAddr>) {
    let listeners: Vec<_> = (0..world).map(|_| RingListener::bind(LOOPBACK).unwrap()).collect();
    let peers = listeners.iter().map(RingListener::local_addr).collect();
    (listeners, peers)
}

pub(crate) fn topology(rank: usize, peers: &[SocketAddr], patience: Duration) -> Topology {
    Topology {
        rank,
        world: peers.len(),
        peers: peers.to_vec(),
        fence: fence(),
        patience,
        transport: Transport::Auto,
        compression: Compression::None,
        host: None,
    }
}

/// Connects all ranks, each with its topology as `change` leaves it.
pub(crate) fn connect_each(
    world: usize,
    patience: Duration,
    change: impl Fn(&mut Topology),
) -> Vec<Result<Box<dyn Collective>, CollectiveError>> {
    let (listeners, peers) = listeners(world);
    std::thread::scope(|scope| {
        let ranks: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(rank, listener)| {
                let mut topology = topology(rank, &peers, patience);
                change(&mut topology);
                scope.spawn(move || connect(listener, topology))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Both ways between processes; what holds for one must hold for the other.
pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Shm];

/// Each of the worlds over each of the transports.
pub(crate) fn each_way(worlds: impl IntoIterator<Item = usize>) -> Vec<(usize, Transport)> {
    worlds.into_iter().flat_map(|world| TRANSPORTS.map(|transport| (world, transport))).collect()
}

pub(crate) fn gang(world: usize, patience: Duration, transport: Transport) -> Vec<Box<dyn Collective>> {
    let ranks = connect_each(world, patience, |topology| topology.transport = transport);
    ranks.into_iter().map(|rank| rank.unwrap()).collect()
}

/// Lets every rank do `work` at the same time, and gives back what each of them answers.
pub(crate) fn each<T: Send>(
    ranks: Vec<Box<dyn Collective>>,
    work: impl Fn(Box<dyn Collective>) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(|| work(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Values in which the order of summation shows.
pub(crate) fn values(rank: usize, len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|index| {
            let mixed = (index ^ (rank as u32).wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
            (mixed >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A gang whose ranks say that they are on the hosts of these names.
pub(crate) fn gang_on(
    hosts: &[char],
    patience: Duration,
    compression: Compression,
) -> Vec<Box<dyn Collective>> {
    let ranks = connect_each(hosts.len(), patience, |topology| {
        topology.transport = Transport::Hierarchical;
        topology.host = Some(hosts[topology.rank].to_string());
        topology.compression = compression;
    });
    ranks.into_iter().map(|rank| rank.unwrap()).collect()
}

/// Where ranks are: several on some host, in order or not, as many on each or not.
pub(crate) const PLACES: [&[char]; 6] = [
    &['a', 'a', 'b', 'b'],
    &['a', 'b', 'a', 'b'],
    &['a', 'a', 'b'],
    &['a', 'b', 'b', 'b', 'a'],
    &['c', 'b', 'a', 'a', 'b', 'c', 'c'],
    &['a', 'a', 'a', 'b', 'b', 'b', 'c', 'c', 'c'],
];
