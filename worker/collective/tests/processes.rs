//! Ranks as processes that are killed or stopped at any moment: every survivor soon ends with an error that
//! names who it was, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use gang::{LOOPBACK, topology};
use rustix::process::{Pid, Signal, kill_process};
use squad_collective::{Buffer, Collective, CollectiveError, RingListener, Transport, connect};

/// Says to this program that it is to be a rank, of how much patience in milliseconds.
const PATIENCE: &str = "SQUAD_TEST_RANK_PATIENCE";

/// For what must happen soon, on however busy a machine.
const SOON: Duration = Duration::from_secs(20);

/// Not a test of its own: what the ranks of the others run.
#[test]
fn a_rank() {
    let Ok(patience) = std::env::var(PATIENCE) else { return };
    let listener = RingListener::bind(LOOPBACK).unwrap();
    println!("\naddress {}", listener.local_addr());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (rank, peers) = line.trim().split_once(' ').unwrap();
    let peers: Vec<_> = peers.split(',').map(|peer| peer.parse().unwrap()).collect();
    let patience = Duration::from_millis(patience.parse().unwrap());
    let mut topology = topology(rank.parse().unwrap(), &peers, patience);
    topology.transport = Transport::Shm;
    let mut ring = connect(listener, topology).unwrap();
    println!("\nready");
    let error = work(&mut *ring).unwrap_err();
    println!("\nended {} {error}", error.blamed().unwrap());
}

/// Every operation in turn, until one fails.
fn work(rank: &mut dyn Collective) -> Result<(), CollectiveError> {
    let mut buffers: Vec<Buffer> =
        [1000, 100_003].into_iter().map(|len| rank.buffer(len)).collect::<Result<_, _>>()?;
    let mut own = vec![1.0; 300_007];
    loop {
        for buffer in &mut buffers {
            buffer.fill(1.0);
            let len = buffer.len();
            rank.all_reduce_buffer(buffer, len)?;
            assert!(buffer.iter().all(|value| *value == rank.world() as f32));
        }
        own.fill(1.0);
        rank.all_reduce(&mut own)?;
        rank.reduce_scatter(&mut own)?;
        rank.all_gather(&mut own)?;
        rank.broadcast(&mut own, 1)?;
        rank.gather_bytes(vec![7; 1000 * rank.rank()])?;
        rank.barrier()?;
        drop(rank.buffer(5000)?);
    }
}

struct Rank {
    process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Rank {
    fn start(patience: Duration) -> Rank {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_rank", "--nocapture"])
            .env(PATIENCE, patience.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let said = listen(process.stdout.take().unwrap());
        Rank { process, stdin, said }
    }

    /// What it says behind `word`, which comes soon.
    fn hear(&self, word: &str) -> String {
        loop {
            let line = self.said.recv_timeout(SOON).unwrap_or_else(|error| panic!("no {word:?}: {error}"));
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn listen(stdout: ChildStdout) -> Receiver<String> {
    let (tell, said) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            tell.send(line).ok();
        }
    });
    said
}

fn start(world: usize, patience: Duration) -> Vec<Rank> {
    let mut ranks: Vec<_> = (0..world).map(|_| Rank::start(patience)).collect();
    let peers = ranks.iter().map(|rank| rank.hear("address ")).collect::<Vec<_>>().join(",");
    for (number, rank) in ranks.iter_mut().enumerate() {
        writeln!(rank.stdin, "{number} {peers}").unwrap();
    }
    for rank in &ranks {
        rank.hear("ready");
    }
    ranks
}

/// Numbers that look random and are the same in each run.
fn mixed(seed: u64) -> u64 {
    let value = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

/// One gang of 2 to 4, one victim, some time after it has begun to work.
fn round(seed: u64, signal: Signal, patience: Duration) {
    let world = 2 + mixed(seed) as usize % 3;
    let victim = mixed(seed + 1000) as usize % world;
    let mut ranks = start(world, patience);
    thread::sleep(Duration::from_micros(mixed(seed + 2000) % 15_000));
    ranks[victim].signal(signal);
    for (number, rank) in ranks.iter().enumerate().filter(|(number, _)| *number != victim) {
        let end = rank.hear("ended ");
        assert!(end.starts_with(&victim.to_string()), "seed {seed}, rank {number}, victim {victim}: {end}");
    }
    if signal == Signal::STOP {
        // It, too, learns how it went on.
        ranks[victim].signal(Signal::CONT);
        let end = ranks[victim].hear("ended ");
        assert!(end.starts_with(&victim.to_string()), "seed {seed}, victim {victim}: {end}");
    }
    for (number, rank) in ranks.iter_mut().enumerate() {
        assert_eq!(rank.process.wait().unwrap().success(), number != victim || signal == Signal::STOP);
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

fn rounds(seeds: std::ops::Range<u64>, beside: u64, signal: Signal, patience: Duration) {
    let before = left_behind();
    thread::scope(|scope| {
        for first in 0..beside {
            let seeds = (seeds.start + first..seeds.end).step_by(beside as usize);
            scope.spawn(move || seeds.for_each(|seed| round(seed, signal, patience)));
        }
    });
    assert_eq!(left_behind(), before);
}

#[test]
fn survivors_of_a_killed_rank_learn_it_at_once() {
    // With patience beyond what the test waits: it is the death that they notice.
    rounds(0..120, 2, Signal::KILL, 3 * SOON);
}

#[test]
fn survivors_of_a_stopped_rank_learn_it_when_patience_is_over() {
    rounds(200..280, 8, Signal::STOP, Duration::from_millis(1500));
}

#[test]
fn processes_share_memory_and_end_when_one_leaves() {
    let mut ranks = start(3, SOON);
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
