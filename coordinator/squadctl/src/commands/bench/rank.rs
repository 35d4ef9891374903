//! One of the ranks that are measured.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, anyhow};
use squad_collective::RingListener;
use squad_collective::bench::{Orders, take_part};

use crate::fault::Verdict;

/// Tells its address in a line on stdout, reads its orders, a line of JSON, from stdin, takes part, and as rank 0 gives the
/// report.
pub(super) fn live() -> anyhow::Result<Verdict> {
    let listener = RingListener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(|error| anyhow!(error))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()).context("cannot tell the address")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the orders")?;
    let orders: Orders = serde_json::from_str(&line).context("orders that make no sense")?;
    let is_first = orders.rank == 0;
    let report = take_part(listener, orders, Vec::new()).map_err(|error| anyhow!(error))?;
    if is_first {
        writeln!(stdout, "{}", serde_json::to_string(&report)?).context("cannot give the report")?;
    }
    Ok(Verdict::Done)
}
