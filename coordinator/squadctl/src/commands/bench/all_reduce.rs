//! Ranks as processes of this machine, and what they measured.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table};
use rand::Rng;
use squad_collective::bench::{Orders, Report, Row};

use super::{links, plot};
use crate::cli::{AllReduceArgs, Carrier, Owner, Rounding};
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;
use crate::report;
use crate::sizes::{Sizes, shown};

/// What is measured where nothing is said.
const ALL_SIZES: &str = "4KiB..256MiB";

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
    let plain = arguments.compression == Rounding::None && arguments.hosts == 1;
    if arguments.transport == Carrier::Nccl && !(plain && arguments.memory == Owner::Collective) {
        let problem =
            "--transport nccl sums in the memory of GPUs: without --compression, --hosts and --memory caller";
        return Err(BadUsage(problem.into()).into());
    }
    if let Some(link) = arguments.link_gbps {
        let scaling = links::measure(arguments, link)?;
        draw(arguments, || plot::scaling(&scaling))?;
        output.answer(&scaling, || links::table(&scaling))?;
        return verdict(scaling.runs.iter().flat_map(|run| &run.results));
    }
    let report = run(&Measurement {
        np: arguments.np.unwrap_or(2),
        carrier: arguments.transport,
        in_place: arguments.memory == Owner::Collective,
        sizes: match &arguments.sizes {
            Some(sizes) => sizes.0.clone(),
            None => ALL_SIZES.parse::<Sizes>().map_err(BadUsage)?.0,
        },
        seconds: arguments.seconds,
        compression: arguments.compression,
        hosts: arguments.hosts,
        link_gbps: None,
    })?;
    draw(arguments, || plot::picture(&report))?;
    output.answer(&report, || table(&report))?;
    verdict(report.results.iter())
}

fn draw(arguments: &AllReduceArgs, picture: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    if let Some(path) = &arguments.plot {
        std::fs::write(path, picture()?)
            .with_context(|| format!("cannot write --plot {}", path.display()))?;
    }
    Ok(())
}

fn verdict<'a>(mut rows: impl Iterator<Item = &'a Row>) -> anyhow::Result<Verdict> {
    match rows.find(|row| !row.correct) {
        Some(row) => bail!("a sum of {} was wrong", shown(row.bytes)),
        None => Ok(Verdict::Done),
    }
}

/// What is measured with one set of ranks.
pub(super) struct Measurement {
    pub(super) np: u16,
    pub(super) carrier: Carrier,
    pub(super) in_place: bool,
    pub(super) sizes: Vec<usize>,
    pub(super) seconds: f64,
    pub(super) compression: Rounding,
    pub(super) hosts: u16,
    pub(super) link_gbps: Option<f64>,
}

/// Starts the ranks, lets them measure, and gives what rank 0 says.
pub(super) fn run(what: &Measurement) -> anyhow::Result<Report> {
    let mut ranks = Vec::new();
    let mut peers: Vec<SocketAddr> = Vec::new();
    for rank in 0..usize::from(what.np) {
        let mut started = start(what.carrier).with_context(|| format!("cannot start rank {rank}"))?;
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
            transport: match what.carrier {
                Carrier::Auto => "auto",
                Carrier::Shm => "shm",
                Carrier::Tcp => "tcp",
                Carrier::Hierarchical => "hierarchical",
                Carrier::Server => "server",
                Carrier::Nccl => "nccl",
            }
            .to_owned(),
            compression: match what.compression {
                Rounding::None => "none",
                Rounding::Fp16 => "fp16",
                Rounding::Bf16 => "bf16",
            }
            .to_owned(),
            host: (what.hosts > 1)
                .then(|| (rank * usize::from(what.hosts) / usize::from(what.np)).to_string()),
            link_gbps: what.link_gbps,
            in_place: what.in_place,
            sizes: what.sizes.clone(),
            seconds: what.seconds,
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

fn start(carrier: Carrier) -> anyhow::Result<Rank> {
    // What knows of GPUs is the worker.
    let (program, arguments) = match carrier {
        Carrier::Nccl => (squad_coordinator::find_worker_program()?, &["rank"][..]),
        _ => (std::env::current_exe()?, &["bench", "rank"][..]),
    };
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
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
