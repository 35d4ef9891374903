//! Ranks as processes to which things are done at any moment: every survivor soon ends with an error that names who it
//! was, and nothing is left behind. How many times: `SQUAD_FAULT_ROUNDS`, for each kind of fault.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use gang::LOOPBACK;
use gang::process::{Rank, Role, SOON, live, start};
use rustix::net::{SendFlags, Shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use squad_collective::{RingListener, Transport, connect};

/// Not a test of its own: what the ranks of the others run.
#[test]
fn a_rank() {
    live();
}

const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Shm, Transport::Hierarchical];

/// What is done to a rank.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Its process is killed.
    Kill,
    /// Its process is stopped, until the others have given it up.
    Stop,
    /// One of its connections is shut down.
    Shut,
    /// Something else is sent over one of its connections, against the direction of the ring.
    Garbage,
}

/// Numbers that look random and are the same in each run.
fn mixed(seed: u64) -> u64 {
    let value = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

/// Roles of 2 to 5 ranks, 3 to 5 if they are on two hosts.
fn roles(seed: u64, transport: Transport, patience: Duration) -> Vec<Role> {
    let least = if transport == Transport::Hierarchical { 3 } else { 2 };
    let world = least + mixed(seed) as usize % (6 - least);
    // On which host each is differs too, but at least two are on one, and not all.
    let host = |rank: usize| if rank < 2 { 'a' } else { ['b', 'a'][(mixed(seed + 7) as usize >> rank) % 2] };
    let mut roles: Vec<_> = (0..world)
        .map(|rank| Role { transport, patience, host: host(rank), interface: LOOPBACK, network: None })
        .collect();
    roles[world - 1].host = 'b';
    let turned = mixed(seed + 8) as usize % world;
    roles.rotate_left(turned);
    roles
}

/// Connections of a rank's process, and the other end of each.
fn connections(rank: &Rank) -> Vec<(OwnedFd, SocketAddr)> {
    let process = pidfd_open(Pid::from_child(&rank.process), PidfdFlags::empty()).unwrap();
    let folder = std::fs::read_dir(format!("/proc/{}/fd", rank.process.id())).unwrap();
    let sockets = folder.flatten().filter(|entry| {
        entry.path().read_link().is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    });
    let numbers: Vec<i32> =
        sockets.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    let copies = numbers.into_iter().filter_map(|number| {
        let copy = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let there = SocketAddr::try_from(rustix::net::getpeername(&copy).ok()??).ok()?;
        Some((copy, there))
    });
    copies.collect()
}

/// Whether a rank that is killed or stopped is what they all name; a broken connection has two ends.
fn is_named(fault: Fault) -> bool {
    matches!(fault, Fault::Kill | Fault::Stop)
}

fn inflict(fault: Fault, rank: &Rank, listening: &BTreeSet<u16>, seed: u64) {
    match fault {
        Fault::Kill => rank.signal(Signal::KILL),
        Fault::Stop => rank.signal(Signal::STOP),
        Fault::Shut => {
            let connections = connections(rank);
            let (socket, _) = &connections[mixed(seed + 3000) as usize % connections.len()];
            rustix::net::shutdown(socket, Shutdown::Both).unwrap();
        }
        Fault::Garbage => {
            // The previous rank has connected to this one, from a port on which nobody listens.
            let mut connections = connections(rank);
            connections.retain(|(_, there)| !listening.contains(&there.port()));
            let (socket, _) = &connections[mixed(seed + 3000) as usize % connections.len()];
            rustix::net::send(socket, &[0xee; 100], SendFlags::NOSIGNAL).unwrap();
        }
    }
}

/// An error says who found what with whom, where, in which operation, and how far it was.
fn is_precise(end: &str) -> bool {
    let aborted = end.contains("aborted");
    aborted || [" with rank ", " at 127.0.0.1:", " after ", " bytes"].iter().all(|part| end.contains(part))
}

/// One gang, one victim, some time after it has begun to work.
fn round(seed: u64, fault: Fault, transport: Transport, patience: Duration) {
    let roles = roles(seed, transport, patience);
    let mut listening = BTreeSet::new();
    let mut ranks = start(&roles, |peers| {
        listening = peers.iter().map(|peer| peer.parse::<SocketAddr>().unwrap().port()).collect();
    });
    let victim = mixed(seed + 1000) as usize % ranks.len();
    let hosts: String = roles.iter().map(|role| role.host).collect();
    let place = format!("{fault:?}, {transport} {hosts}, seed {seed}, victim {victim}");
    thread::sleep(Duration::from_micros(mixed(seed + 2000) % 15_000));
    inflict(fault, &ranks[victim], &listening, seed);
    let lives = |number: usize| number != victim || !is_named(fault);
    for (number, rank) in ranks.iter().enumerate().filter(|(number, _)| lives(*number)) {
        let end = rank.hear("ended ");
        assert!(is_precise(&end), "{place}, rank {number}: {end}");
        let blamed = end.split(' ').next().unwrap();
        assert!(!is_named(fault) || blamed == victim.to_string(), "{place}, rank {number}: {end}");
    }
    if fault == Fault::Stop {
        // It, too, learns how it went on.
        ranks[victim].signal(Signal::CONT);
        let end = ranks[victim].hear("ended ");
        assert!(end.starts_with(&victim.to_string()), "{place}: {end}");
    }
    for (number, rank) in ranks.iter_mut().enumerate() {
        let well = rank.process.wait().unwrap().success();
        assert_eq!(well, number != victim || fault != Fault::Kill, "{place}, rank {number}");
    }
}

/// Names in the folder of shared memory that could be ours.
fn left_behind() -> BTreeSet<String> {
    let names = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("squad"))
        .collect()
}

/// As many rounds as are asked for, `beside` at a time, over all of the transports in turn.
fn rounds(fault: Fault, first: u64, beside: u64, transports: &[Transport], patience: Duration) {
    let asked = std::env::var("SQUAD_FAULT_ROUNDS").ok();
    let count: u64 = asked.map_or(9, |asked| asked.parse().unwrap());
    let before = left_behind();
    thread::scope(|scope| {
        for lane in 0..beside {
            let turns = (lane..count).step_by(beside as usize);
            scope.spawn(move || {
                turns.for_each(|turn| {
                    let transport = transports[turn as usize % transports.len()];
                    round(first + turn, fault, transport, patience);
                });
            });
        }
    });
    assert_eq!(left_behind(), before);
}

#[test]
fn survivors_of_a_killed_rank_learn_it_at_once() {
    // With patience beyond what the test waits: it is the death that they notice.
    rounds(Fault::Kill, 0, 2, &TRANSPORTS, 3 * SOON);
}

#[test]
fn survivors_of_a_stopped_rank_learn_it_when_patience_is_over() {
    rounds(Fault::Stop, 10_000, 5, &TRANSPORTS, Duration::from_millis(2500));
}

#[test]
fn a_connection_that_is_shut_down_ends_all() {
    rounds(Fault::Shut, 20_000, 2, &TRANSPORTS, 3 * SOON);
}

#[test]
fn garbage_on_a_connection_ends_all() {
    rounds(Fault::Garbage, 30_000, 2, &[Transport::Tcp, Transport::Hierarchical], 3 * SOON);
}

/// Guests at the door of a rank that has none of ours to expect.
fn visit(address: SocketAddr, seed: u64) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let word: &[u8] = match mixed(seed) % 4 {
        // A port scanner.
        0 => b"",
        1 => b"GET / HTTP/1.1\r\nHost: ring\r\n\r\n",
        2 => b"SQDRING2 and no more",
        _ => &[0xee; 4096],
    };
    // They are turned away at any time.
    stream.write_all(word).ok();
    thread::sleep(Duration::from_millis(mixed(seed + 1) % 100));
}

/// A rank of this job that does not know its token.
fn intrude(peers: &[SocketAddr]) {
    let listener = RingListener::bind(LOOPBACK).unwrap();
    let mut peers = peers.to_vec();
    peers[0] = listener.local_addr();
    let mut topology = gang::topology(0, &peers, Duration::from_millis(300));
    topology.fence.token = "guessed".to_owned();
    let Err(_) = connect(listener, topology) else { panic!("an intruder got in") };
}

#[test]
fn strangers_at_the_door_do_not_keep_a_gang_from_meeting() {
    let asked = std::env::var("SQUAD_FAULT_ROUNDS").ok();
    let count: u64 = asked.map_or(6, |asked| asked.parse().unwrap());
    for turn in 0..count {
        let transport = TRANSPORTS[turn as usize % 3];
        let roles = roles(40_000 + turn, transport, SOON);
        thread::scope(|scope| {
            let ranks = start(&roles, |peers| {
                let peers: Vec<SocketAddr> = peers.iter().map(|peer| peer.parse().unwrap()).collect();
                for (number, peer) in peers.iter().enumerate() {
                    let peer = *peer;
                    scope.spawn(move || {
                        (0..4).for_each(|visit_no| visit(peer, turn * 64 + number as u64 * 4 + visit_no))
                    });
                }
                scope.spawn(move || intrude(&peers));
                thread::sleep(Duration::from_millis(mixed(turn) % 50));
            });
            let said: Vec<_> = ranks.iter().map(|rank| rank.hear("sums ")).collect();
            assert!(said.iter().all(|sums| *sums == said[0]), "{said:?}");
        });
    }
}

#[test]
fn processes_share_memory_and_end_when_one_leaves() {
    let mut roles = roles(1, Transport::Shm, SOON);
    roles.resize(3, roles[0].clone());
    let mut ranks = start(&roles, |_| {});
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", ranks[0].process.id())).unwrap();
    let open: Vec<_> = descriptors.flatten().filter_map(|entry| entry.path().read_link().ok()).collect();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", ranks[2].process.id())).unwrap();
    assert!(maps.contains("/memfd:squadron-collective"), "{maps}");
    // Mapped, but no longer open: nobody can come to it late. The one being made at present may be.
    let memory = open.iter().filter(|path| path.to_string_lossy().contains("squadron-collective")).count();
    assert!(memory <= 1, "{open:?}");
    ranks.remove(1);
    for rank in &ranks {
        assert!(rank.hear("ended ").starts_with('1'));
    }
}
