//! Ranks as processes of this machine, and what they measured.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table};
use rand::Rng;
use squad_collective::bench::Report;

use super::plot;
use super::rank::Orders;
use crate::cli::{AllReduceArgs, Carrier, Owner, Rounding};
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;
use crate::report;
use crate::sizes::shown;

/// A rank's process; it ends with this value.
struct Rank {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Rank {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Measures all-reduce and shows it. A wrong sum fails the command.
pub(super) fn measure(arguments: &AllReduceArgs, output: Output) -> anyhow::Result<Verdict> {
    if !(arguments.seconds > 0.0 && arguments.seconds <= 3600.0) {
        return Err(BadUsage(format!("--seconds {}: more than 0, up to 3600", arguments.seconds)).into());
    }
    let report = run(arguments)?;
    if let Some(path) = &arguments.plot {
        let picture = plot::picture(&report)?;
        std::fs::write(path, picture).with_context(|| format!("cannot write --plot {}", path.display()))?;
    }
    output.answer(&report, || table(&report))?;
    match report.results.iter().find(|row| !row.correct) {
        Some(row) => bail!("a sum of {} was wrong", shown(row.bytes)),
        None => Ok(Verdict::Done),
    }
}

fn run(arguments: &AllReduceArgs) -> anyhow::Result<Report> {
    let mut ranks = Vec::new();
    let mut peers: Vec<SocketAddr> = Vec::new();
    for rank in 0..usize::from(arguments.np) {
        let mut started = start().with_context(|| format!("cannot start rank {rank}"))?;
        let mut address = String::new();
        started.answers.read_line(&mut address).context("cannot read a rank's address")?;
        peers.push(address.trim().parse().with_context(|| format!("rank {rank} told no address"))?);
        ranks.push(started);
    }
    let token = format!("{:032x}", rand::rng().random::<u128>());
    for (rank, started) in ranks.iter_mut().enumerate() {
        let orders = Orders {
            rank,
            peers: peers.clone(),
            token: token.clone(),
            transport: match arguments.transport {
                Carrier::Auto => "auto",
                Carrier::Shm => "shm",
                Carrier::Tcp => "tcp",
                Carrier::Hierarchical => "hierarchical",
            }
            .to_owned(),
            compression: match arguments.compression {
                Rounding::None => "none",
                Rounding::Fp16 => "fp16",
                Rounding::Bf16 => "bf16",
            }
            .to_owned(),
            host: (arguments.hosts > 1)
                .then(|| (rank * usize::from(arguments.hosts) / usize::from(arguments.np)).to_string()),
            in_place: arguments.memory == Owner::Collective,
            sizes: arguments.sizes.0.clone(),
            seconds: arguments.seconds,
        };
        writeln!(started.orders, "{}", serde_json::to_string(&orders)?)
            .with_context(|| format!("rank {rank} reads no orders"))?;
    }
    let mut line = String::new();
    if let Some(first) = ranks.first_mut() {
        first.answers.read_line(&mut line).context("cannot read the report")?;
    }
    for (rank, started) in ranks.iter_mut().enumerate() {
        let status = started.child.wait().with_context(|| format!("cannot wait for rank {rank}"))?;
        if !status.success() {
            bail!("rank {rank} failed ({status}); what it said is above");
        }
    }
    serde_json::from_str(&line).context("rank 0 gave no report")
}

fn start() -> anyhow::Result<Rank> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "rank"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("a process without the pipes that were asked for");
    };
    Ok(Rank { child, orders, answers: BufReader::new(answers) })
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.set_header(["SIZE", "TIMES", "MEDIAN", "P99", "ALGBW", "BUSBW", "BOUND", "SHARE", "SUMS"]);
    let time = |seconds: f64| format!("{:.1} us", seconds * 1e6);
    let rate = |rate: f64| format!("{rate:.2} GB/s");
    for row in &report.results {
        table.add_row([
            shown(row.bytes),
            row.iters.to_string(),
            time(row.median_s),
            time(row.p99_s),
            rate(row.algbw),
            rate(row.busbw),
            row.bound.map(rate).unwrap_or_default(),
            row.share_of_bound.map(|share| format!("{:.0} %", 100.0 * share)).unwrap_or_default(),
            if row.correct { "right" } else { "WRONG" }.to_owned(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{} ranks over {}\n{}", report.np, report.transport, report::plain(table))
}
