//! One of the ranks that are measured.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use squad_collective::bench::{Memory, Plan, all_reduce, connect_over_link};
use squad_collective::{Compression, Fence, RingListener, Topology, connect};

use crate::fault::Verdict;

/// How long a rank waits for another: the others may be filling the largest of buffers. Fixed: a measurement is no job.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a rank is told, in one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) rank: usize,
    pub(super) peers: Vec<SocketAddr>,
    /// Known to the ranks of this measurement only.
    pub(super) token: String,
    pub(super) transport: String,
    pub(super) compression: String,
    /// The host that it says to be on.
    pub(super) host: Option<String>,
    /// Speed of its link, in gigabits a second; none where it is not throttled.
    pub(super) link_gbps: Option<f64>,
    /// Whether the collective's memory is reduced, or else the caller's.
    pub(super) in_place: bool,
    pub(super) sizes: Vec<usize>,
    pub(super) seconds: f64,
}

/// Tells its address in a line on stdout, reads its orders from stdin, takes part, and as rank 0 gives the report.
pub(super) fn live() -> anyhow::Result<Verdict> {
    let listener = RingListener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(|error| anyhow!(error))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()).context("cannot tell the address")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the orders")?;
    let orders: Orders = serde_json::from_str(&line).context("orders that make no sense")?;
    let memory = if orders.in_place { Memory::Collective } else { Memory::Caller };
    let compression = orders.compression.parse().map_err(|problem: String| anyhow!(problem))?;
    let tolerance = match compression {
        Compression::None => 0.0,
        // Each rank but one rounds once, and who finishes the sum once more; sums go up to so many times 100.
        Compression::Fp16 => orders.peers.len() as f32 * 2_f32.powi(-11),
        Compression::Bf16 => orders.peers.len() as f32 * 2_f32.powi(-8),
    };
    let plan = Plan { sizes: orders.sizes, seconds: orders.seconds, memory, tolerance };
    let topology = Topology {
        rank: orders.rank,
        world: orders.peers.len(),
        peers: orders.peers,
        fence: Fence { job: "bench".into(), generation: 1, token: orders.token, layout: [0; 32] },
        patience: PATIENCE,
        transport: orders.transport.parse().map_err(|problem: String| anyhow!(problem))?,
        compression,
        host: orders.host,
    };
    let gang = match orders.link_gbps {
        Some(link) => connect_over_link(listener, topology, link),
        None => connect(listener, topology),
    };
    let mut gang = gang.map_err(|error| anyhow!(error))?;
    let report = all_reduce(&mut *gang, &plan).map_err(|error| anyhow!(error))?;
    if orders.rank == 0 {
        writeln!(stdout, "{}", serde_json::to_string(&report)?).context("cannot give the report")?;
    }
    Ok(Verdict::Done)
}
