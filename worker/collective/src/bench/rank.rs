//! One of the ranks that are measured, a process of its own.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Memory, Plan, Report, all_reduce, connect_over_link};
use crate::error::CollectiveError;
use crate::{Compression, Fence, RingListener, Topology, connect};

/// How long a rank waits for another: the others may be filling the largest of buffers. Fixed: a measurement is no job.
const PATIENCE: Duration = Duration::from_secs(120);

/// What carries the bytes where GPUs do.
const NCCL: &str = "nccl";

/// What a rank is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Its number.
    pub rank: usize,
    /// Where each rank listens, itself too.
    pub peers: Vec<SocketAddr>,
    /// Known to the ranks of this measurement only.
    pub token: String,
    /// A [`crate::Transport`], or `nccl`: then GPU `rank` is this rank's.
    pub transport: String,
    /// A [`Compression`].
    pub compression: String,
    /// The host that it says to be on.
    pub host: Option<String>,
    /// Speed of its link, in gigabits a second; none where it is not throttled.
    pub link_gbps: Option<f64>,
    /// Whether the collective's memory is reduced, or else the caller's.
    pub in_place: bool,
    /// Bytes of the buffers.
    pub sizes: Vec<usize>,
    /// About how long to measure each size, in seconds.
    pub seconds: f64,
}

/// A rank's whole life: tells its address in a line on stdout, reads its [`Orders`], a line of JSON, from stdin, takes part,
/// and as rank 0 gives the [`Report`] in a line of JSON. `libraries` are files to try where NCCL is wanted and the dynamic loader knows
/// none.
///
/// # Errors
/// [`CollectiveError::Usage`] for orders that make no sense; what broke the gang; what NCCL lacks.
pub fn live(libraries: Vec<PathBuf>) -> Result<(), CollectiveError> {
    let usage = |problem| CollectiveError::Usage { problem };
    let listener = RingListener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr())
        .map_err(|error| usage(format!("cannot tell the address: {error}")))?;
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| usage(format!("cannot read the orders: {error}")))?;
    let orders: Orders =
        serde_json::from_str(&line).map_err(|error| usage(format!("orders that make no sense: {error}")))?;
    let rank = orders.rank;
    let report = take_part(listener, orders, libraries)?;
    if rank == 0 {
        let report = serde_json::to_string(&report).map_err(std::io::Error::from);
        report
            .and_then(|report| writeln!(stdout, "{report}"))
            .map_err(|cause| CollectiveError::local(rank, "giving the report", cause))?;
    }
    Ok(())
}

/// Measures together with the other ranks.
fn take_part(
    listener: RingListener,
    orders: Orders,
    libraries: Vec<PathBuf>,
) -> Result<Report, CollectiveError> {
    let usage = |problem| CollectiveError::Usage { problem };
    let memory = if orders.in_place { Memory::Collective } else { Memory::Caller };
    let compression = orders.compression.parse().map_err(usage)?;
    let tolerance = match compression {
        Compression::None => 0.0,
        // Each rank but one rounds once, and who finishes the sum once more; sums go up to so many times 100.
        Compression::Fp16 => orders.peers.len() as f32 * 2_f32.powi(-11),
        Compression::Bf16 => orders.peers.len() as f32 * 2_f32.powi(-8),
    };
    let plan = Plan { sizes: orders.sizes, seconds: orders.seconds, memory, tolerance };
    let by_nccl = orders.transport == NCCL;
    let topology = Topology {
        rank: orders.rank,
        world: orders.peers.len(),
        peers: orders.peers,
        fence: Fence { job: "bench".into(), generation: 1, token: orders.token, layout: [0; 32] },
        patience: PATIENCE,
        transport: if by_nccl { crate::Transport::Auto } else { orders.transport.parse().map_err(usage)? },
        compression,
        host: orders.host,
    };
    let mut gang = match orders.link_gbps {
        Some(link) => connect_over_link(listener, topology, link)?,
        None => connect(listener, topology)?,
    };
    if by_nccl {
        return on_gpus(gang, orders.rank, libraries, &plan);
    }
    all_reduce(&mut *gang, &plan)
}

#[cfg(feature = "nccl")]
fn on_gpus(
    gang: Box<dyn crate::Collective>,
    device: usize,
    libraries: Vec<PathBuf>,
    plan: &Plan,
) -> Result<Report, CollectiveError> {
    let control = crate::Background::start(gang);
    let options = crate::nccl::Options { device, patience: PATIENCE, libraries };
    let communicator = crate::nccl::Communicator::join(options, &control)?;
    crate::nccl::bench(&control, &communicator, plan)
}

#[cfg(not(feature = "nccl"))]
fn on_gpus(
    _: Box<dyn crate::Collective>,
    _: usize,
    _: Vec<PathBuf>,
    _: &Plan,
) -> Result<Report, CollectiveError> {
    Err(CollectiveError::Usage { problem: "this program was built without the feature nccl".into() })
}
