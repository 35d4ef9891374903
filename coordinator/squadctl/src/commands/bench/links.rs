//! How all-reduce scales with the number of ranks when each has a link of a given speed.

use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use squad_collective::bench::Report;

use super::all_reduce::{Measurement, run};
use super::plot;
use crate::cli::{AllReduceArgs, Carrier, Owner};
use crate::fault::BadUsage;
use crate::report;
use crate::sizes::shown;

/// Largest number of ranks where none is given.
const RANKS: u16 = 8;

/// Size of the buffer where none is given.
const BYTES: usize = 16 << 20;

/// What came out.
#[derive(Debug, Serialize)]
pub(super) struct Scaling {
    /// Speed of each rank's link, each way, in gigabits a second.
    pub(super) link_gbps: f64,
    /// One report for each way and each number of ranks.
    pub(super) runs: Vec<Report>,
}

/// Measures the ring and the server, or the one that is asked for, with two ranks and more.
pub(super) fn measure(arguments: &AllReduceArgs, link: f64) -> anyhow::Result<Scaling> {
    if !(0.001..=1000.0).contains(&link) {
        return Err(BadUsage(format!("--link-gbps {link}: 0.001 to 1000")).into());
    }
    let carriers: &[Carrier] = match arguments.transport {
        Carrier::Auto => &[Carrier::Tcp, Carrier::Server],
        Carrier::Tcp => &[Carrier::Tcp],
        Carrier::Server => &[Carrier::Server],
        _ => {
            return Err(
                BadUsage("--link-gbps goes with --transport tcp, server or auto (both)".into()).into()
            );
        }
    };
    let most = arguments.np.unwrap_or(RANKS).max(2);
    let mut runs = Vec::new();
    for carrier in carriers {
        for np in 2..=most {
            runs.push(run(&Measurement {
                np,
                carrier: *carrier,
                in_place: arguments.memory == Owner::Collective,
                sizes: arguments.sizes.as_ref().map_or(vec![BYTES], |sizes| sizes.0.clone()),
                seconds: arguments.seconds,
                compression: arguments.compression,
                hosts: 1,
                link_gbps: Some(link),
            })?);
        }
    }
    Ok(Scaling { link_gbps: link, runs })
}

/// The times as a table.
pub(super) fn table(scaling: &Scaling) -> String {
    let mut table = Table::new();
    table.set_header(["WAY", "RANKS", "SIZE", "TIMES", "MEDIAN", "P99", "BUSBW", "SUMS"]);
    let time = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    for run in &scaling.runs {
        for row in &run.results {
            table.add_row([
                plot::way(&run.transport).to_owned(),
                run.np.to_string(),
                shown(row.bytes),
                row.iters.to_string(),
                time(row.median_s),
                time(row.p99_s),
                format!("{:.3} GB/s", row.busbw),
                if row.correct { "right" } else { "WRONG" }.to_owned(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("links of {} Gbit/s each way\n{}", scaling.link_gbps, report::plain(table))
}
