//! Ranks as processes of their own: this test program again, told by a variable to be a rank.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "they talk with the test over pipes"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use squad_collective::{Buffer, Collective, CollectiveError, RingListener, Transport, connect};

use super::{topology, values};

/// Says to this program that it is to be a rank, and which.
const RANK: &str = "SQUAD_TEST_RANK";

/// For what must happen soon, on however busy a machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a rank is told when it starts.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) transport: Transport,
    pub(crate) patience: Duration,
    /// The host that it says to be on.
    pub(crate) host: char,
    pub(crate) interface: IpAddr,
    /// The network namespace in which it runs.
    pub(crate) network: Option<String>,
}

/// What every test program with ranks has as a test named `a_rank`: the life of one of them.
pub(crate) fn live() {
    let Ok(role) = std::env::var(RANK) else { return };
    let [transport, patience, host, interface] =
        <[&str; 4]>::try_from(role.split(' ').collect::<Vec<_>>()).unwrap();
    let listener = RingListener::bind(interface.parse().unwrap()).unwrap();
    println!("\naddress {}", listener.local_addr());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (rank, peers) = line.trim().split_once(' ').unwrap();
    let peers: Vec<_> = peers.split(',').map(|peer| peer.parse().unwrap()).collect();
    let patience = Duration::from_millis(patience.parse().unwrap());
    let mut topology = topology(rank.parse().unwrap(), &peers, patience);
    topology.transport = transport.parse().unwrap();
    topology.host = Some(host.to_owned()).filter(|_| topology.transport != Transport::Shm);
    let mut ring = match connect(listener, topology) {
        Ok(ring) => ring,
        Err(error) => {
            println!("\nended {} 0 {error}", error.blamed().unwrap_or(usize::MAX));
            return;
        }
    };
    println!("\nready {}", ring.transport());
    let mut begun = Instant::now();
    let error = sums(&mut *ring).and_then(|sums| {
        println!("\nsums {sums}");
        work(&mut *ring, &mut begun)
    });
    let error = error.unwrap_err();
    println!("\nended {} {} {error}", error.blamed().unwrap(), begun.elapsed().as_millis());
}

/// Bits of some sums, folded, and their largest distance from the exact ones.
fn sums(rank: &mut dyn Collective) -> Result<String, CollectiveError> {
    let (mut folded, mut furthest) = (0_u64, 0.0_f64);
    for len in [1, 1000, 300_007] {
        let mut buffer = rank.buffer(len)?;
        buffer.copy_from_slice(&values(rank.rank(), len));
        rank.all_reduce_buffer(&mut buffer, len)?;
        let inputs: Vec<_> = (0..rank.world()).map(|rank| values(rank, len)).collect();
        for (index, sum) in buffer.iter().enumerate() {
            let exact: f64 = inputs.iter().map(|input| f64::from(input[index])).sum();
            furthest = furthest.max((f64::from(*sum) - exact).abs());
            folded = folded.rotate_left(5) ^ u64::from(sum.to_bits());
        }
    }
    Ok(format!("{folded:016x} {furthest:e}"))
}

/// One operation.
type Act = fn(&mut dyn Collective, &mut [f32]) -> Result<(), CollectiveError>;

/// Every operation in turn, until one fails; `begun` is when the last one began.
fn work(rank: &mut dyn Collective, begun: &mut Instant) -> Result<(), CollectiveError> {
    let mut buffers: Vec<Buffer> =
        [1000, 100_003].into_iter().map(|len| rank.buffer(len)).collect::<Result<_, _>>()?;
    let mut own = vec![1.0; 300_007];
    loop {
        for buffer in &mut buffers {
            buffer.fill(1.0);
            let len = buffer.len();
            *begun = Instant::now();
            rank.all_reduce_buffer(buffer, len)?;
            assert!(buffer.iter().all(|value| *value == rank.world() as f32));
        }
        own.fill(1.0);
        let acts: [Act; 7] = [
            |rank, own| rank.all_reduce(own),
            |rank, own| rank.reduce_scatter(own).map(drop),
            |rank, own| rank.all_gather(own),
            |rank, own| rank.broadcast(own, 1),
            |rank, _| rank.gather_bytes(vec![7; 1000 * rank.rank()]).map(drop),
            |rank, _| rank.barrier(),
            |rank, _| rank.buffer(5000).map(drop),
        ];
        for act in acts {
            *begun = Instant::now();
            act(rank, &mut own)?;
        }
    }
}

/// The process of a rank; it ends with this value.
pub(crate) struct Rank {
    pub(crate) process: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Rank {
    fn start(role: &Role) -> Rank {
        let program = std::env::current_exe().unwrap();
        let mut command = match &role.network {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        };
        let Role { transport, patience, host, interface, .. } = role;
        let mut process = command
            .args(["--exact", "a_rank", "--nocapture"])
            .env(RANK, format!("{transport} {} {host} {interface}", patience.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let said = listen(process.stdout.take().unwrap());
        Rank { process, stdin, said }
    }

    /// What it says behind `word`, which comes within `longest`.
    pub(crate) fn hear_within(&self, word: &str, longest: Duration) -> String {
        let deadline = Instant::now() + longest;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left).unwrap_or_else(|error| panic!("no {word:?}: {error}"));
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// What it says behind `word`, which comes soon.
    pub(crate) fn hear(&self, word: &str) -> String {
        self.hear_within(word, SOON)
    }

    pub(crate) fn signal(&self, signal: Signal) {
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

/// Starts a rank for each role; `meanwhile` is told their addresses before they are told of each other. They are
/// connected when this returns.
pub(crate) fn start(roles: &[Role], meanwhile: impl FnOnce(&[String])) -> Vec<Rank> {
    let mut ranks: Vec<_> = roles.iter().map(Rank::start).collect();
    let peers: Vec<_> = ranks.iter().map(|rank| rank.hear("address ")).collect();
    meanwhile(&peers);
    for (number, rank) in ranks.iter_mut().enumerate() {
        writeln!(rank.stdin, "{number} {}", peers.join(",")).unwrap();
    }
    for rank in &ranks {
        rank.hear("ready ");
    }
    ranks
}
