//! Measures all-reduce between processes of this host: one line of JSON on stdout.
//!
//! ```text
//! cargo run --release -p squad-collective --example rate -- [--np 2] [--transport auto|tcp|shm]
//!     [--memory collective|caller] [--sizes 4096,65536,...] [--seconds 1]
//! ```
//!
//! The program starts itself again for each rank: a rank tells its address on stdout, and learns everybody's
//! and what to do on stdin.

use std::error::Error;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use squad_collective::bench::{Memory, Plan, all_reduce};
use squad_collective::{Fence, RingListener, Topology, connect};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: &str| {
        let at = words.iter().position(|word| word == name).map(|at| at + 1);
        at.and_then(|at| words.get(at)).map_or_else(|| default.to_owned(), String::clone)
    };
    let np: usize = option("--np", "2").parse()?;
    let plan = [
        option("--transport", "auto"),
        option("--memory", "collective"),
        option("--seconds", "1"),
        option("--sizes", "4096,16384,65536,262144,1048576,4194304,16777216,67108864,268435456"),
    ];
    match option("--rank", "").parse() {
        Ok(rank) => work(rank, np),
        Err(_) => start(np, &plan.join(" ")),
    }
}

/// Starts the ranks and tells them of each other.
fn start(np: usize, plan: &str) -> Outcome<()> {
    let program = std::env::current_exe()?;
    let mut ranks: Vec<(Child, ChildStdin, BufReader<ChildStdout>)> = Vec::new();
    let mut peers = Vec::new();
    for rank in 0..np {
        let mut child = Command::new(&program)
            .args(["--np", &np.to_string(), "--rank", &rank.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        stdout.read_line(&mut address)?;
        peers.push(address.trim().to_owned());
        ranks.push((child, stdin, stdout));
    }
    for (_, stdin, _) in &mut ranks {
        writeln!(stdin, "{} {plan}", peers.join(","))?;
    }
    for (child, _, stdout) in &mut ranks {
        for line in stdout.lines() {
            writeln!(std::io::stdout(), "{}", line?)?;
        }
        if !child.wait()?.success() {
            return Err("a rank failed".into());
        }
    }
    Ok(())
}

/// The life of a rank.
fn work(rank: usize, world: usize) -> Outcome<()> {
    let listener = RingListener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    writeln!(stdout(), "{}", listener.local_addr())?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [peers, transport, memory, seconds, sizes] = words[..] else { return Err("no plan".into()) };
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let topology = Topology {
        rank,
        world,
        peers: list(peers).iter().map(|address| address.parse()).collect::<Result<_, _>>()?,
        fence: Fence { job: "rate".into(), generation: 0, token: String::new(), layout: [0; 32] },
        patience: Duration::from_secs(120),
        transport: transport.parse()?,
    };
    let plan = Plan {
        sizes: list(sizes).iter().map(|size| size.parse()).collect::<Result<_, _>>()?,
        seconds: seconds.parse()?,
        memory: if memory == "caller" { Memory::Caller } else { Memory::Collective },
    };
    let mut gang = connect(listener, topology)?;
    let report = all_reduce(&mut *gang, &plan)?;
    if rank == 0 {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(())
}
