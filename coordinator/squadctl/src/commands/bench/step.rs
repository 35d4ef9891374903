//! Steps of training in a worker process, and what it measured.

use std::ffi::OsString;

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table};
use squad_proto::step_bench::StepBench;

use super::plot;
use crate::cli::StepArgs;
use crate::commands::worker;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;
use crate::report;
use crate::sizes::approximate;

/// Measures steps and shows them.
pub(super) fn measure(arguments: &StepArgs, output: Output) -> anyhow::Result<Verdict> {
    if !(arguments.seconds > 0.0 && arguments.seconds <= 3600.0) {
        return Err(BadUsage(format!("--seconds {}: more than 0, up to 3600", arguments.seconds)).into());
    }
    if let Some(rate) = arguments.dropout.filter(|rate| !(0.0..=0.9).contains(rate)) {
        return Err(BadUsage(format!("--dropout {rate}: 0 to 0.9")).into());
    }
    if let Some(file) = arguments.lengths.as_ref().filter(|file| !file.is_file()) {
        return Err(BadUsage(format!("--lengths {}: there is no such file", file.display())).into());
    }
    if let Some(folder) = &arguments.tokenizer {
        worker::folder("--tokenizer", folder, "squadctl models fetch brings one")?;
    }
    let bench: StepBench = worker::answer(&orders(arguments), &[], output)?;
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot::phases(&bench)?)
            .with_context(|| format!("cannot write --plot {}", path.display()))?;
    }
    output.answer(&bench, || text(&bench))?;
    Ok(Verdict::Done)
}

/// The worker's arguments.
fn orders(arguments: &StepArgs) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["bench".into()];
    let mut put = |flag: &str, value: OsString| all.extend([flag.into(), value]);
    put("--model", (&arguments.model).into());
    put("--device", word(arguments.device));
    put("--dtype", word(arguments.dtype));
    put("--head", word(arguments.head));
    put("--batch", arguments.batch.to_string().into());
    put("--seq", arguments.seq.to_string().into());
    put("--seconds", arguments.seconds.to_string().into());
    for (flag, file) in [("--lengths", &arguments.lengths), ("--tokenizer", &arguments.tokenizer)] {
        if let Some(file) = file {
            put(flag, file.into());
        }
    }
    if let Some(rate) = arguments.dropout {
        put("--dropout", rate.to_string().into());
    }
    if let Some(threads) = arguments.threads {
        put("--threads", threads.to_string().into());
    }
    for (flag, is_set) in [("--recompute", arguments.recompute), ("--no-prefetch", arguments.no_prefetch)] {
        if is_set {
            all.push(flag.into());
        }
    }
    all
}

/// A choice as it is written on the command line.
fn word(choice: impl ValueEnum) -> OsString {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default().into()
}

fn text(bench: &StepBench) -> String {
    let lengths = match &bench.lengths {
        Some(file) => format!("up to {} tokens, as in {file}", bench.seq),
        None => format!("{} tokens", bench.seq),
    };
    let mut text = format!(
        "{} of {:.1} million parameters in {}, on {} with {} threads\nbatches of {} windows of {lengths}; {} steps in {:.1} s\n\n",
        bench.model,
        bench.parameters as f64 / 1e6,
        bench.dtype,
        bench.device,
        bench.threads,
        bench.batch,
        bench.steps,
        bench.seconds
    );
    let mut table = Table::new();
    table.set_header([
        "EXAMPLES",
        "TOKENS",
        "REAL TOKENS",
        "PADDING",
        "FLOP/S",
        "OF MATRICES",
        "MEDIAN STEP",
        "PEAK MEMORY",
    ]);
    table.add_row([
        format!("{:.2}/s", bench.examples_per_second),
        format!("{:.0}/s", bench.tokens_per_second),
        format!("{:.0}/s", bench.real_tokens_per_second),
        format!("{:.1} %", 100.0 * bench.padding),
        format!("{:.1} G", bench.flops_per_second / 1e9),
        format!(
            "{:.0} % of {:.1} G",
            100.0 * bench.share_of_matrix_rate,
            bench.matrix_flops_per_second / 1e9
        ),
        format!("{:.1} ms", 1e3 * bench.step_median_s),
        approximate(bench.peak_rss_bytes),
    ]);
    text += &right(table);
    let mut table = Table::new();
    table.set_header(["PHASE", "A STEP", "SHARE"]);
    let whole = bench.seconds / bench.steps.max(1) as f64;
    for (name, seconds) in bench.phases.named() {
        let share = format!("{:.2} %", 100.0 * seconds / whole.max(1e-12));
        table.add_row([name.to_owned(), format!("{:.2} ms", 1e3 * seconds), share]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text + "\n" + &report::plain(table)
}

fn right(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    report::plain(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_proto::step_bench::Phases;

    #[test]
    fn people_get_rates_and_phases() {
        let bench = StepBench {
            model: "m".into(),
            parameters: 22_600_000,
            device: "cpu".into(),
            dtype: "float32".into(),
            batch: 8,
            seq: 384,
            lengths: None,
            prefetch: true,
            threads: 2,
            steps: 4,
            seconds: 8.0,
            step_median_s: 2.0,
            examples_per_second: 4.0,
            tokens_per_second: 1536.0,
            real_tokens_per_second: 1536.0,
            padding: 0.0,
            flops_per_second: 90e9,
            matrix_flops_per_second: 180e9,
            share_of_matrix_rate: 0.5,
            peak_rss_bytes: 1 << 30,
            phases: Phases { forward: 0.5, backward: 1.0, other: 0.5, ..Phases::default() },
        };
        let shown = text(&bench);
        for words in [
            "22.6 million",
            "8 windows of 384 tokens",
            "4.00/s",
            "50 % of 180.0 G",
            "1.0 GiB",
            "1000.00 ms",
            "25.00 %",
        ] {
            assert!(shown.contains(words), "{words} not in\n{shown}");
        }
        let picture = plot::phases(&bench).unwrap();
        assert!(picture.starts_with("<svg") && picture.contains("backward") && picture.contains("8 x 384"));
    }
}
