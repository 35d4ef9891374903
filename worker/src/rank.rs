//! One of the ranks of `squadctl bench allreduce --transport nccl`: squadctl itself has nothing of GPUs.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::Context;
use squad_collective::RingListener;
use squad_collective::bench::{Orders, take_part};
use squad_cuda::Places;

/// Tells its address in a line on stdout, reads its orders, a line of JSON, from stdin, takes part, and as rank 0 gives the
/// report.
///
/// # Errors
/// What the machine lacks; what broke the gang.
pub(crate) fn measure() -> anyhow::Result<ExitCode> {
    let listener = RingListener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()).context("cannot tell the address")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the orders")?;
    let orders: Orders = serde_json::from_str(&line).context("orders that make no sense")?;
    let is_first = orders.rank == 0;
    let report = take_part(listener, orders, Places::of_process().beside("nccl", "libnccl.so.2"))?;
    if is_first {
        writeln!(stdout, "{}", serde_json::to_string(&report)?).context("cannot give the report")?;
    }
    Ok(ExitCode::SUCCESS)
}
