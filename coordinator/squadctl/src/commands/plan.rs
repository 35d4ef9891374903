//! What a job will need.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table};
use squad_proto::plan::{Exchange, Plan};

use super::worker;
use crate::cli::PlanArgs;
use crate::fault::Verdict;
use crate::figures;
use crate::job_file;
use crate::output::Output;
use crate::report;
use crate::sizes::approximate as size;

/// Has a worker plan the job and shows it.
pub(super) fn plan(arguments: &PlanArgs, output: Output) -> anyhow::Result<Verdict> {
    let spec = job_file::placed(&arguments.job)?;
    let workers = arguments.job.processes.unwrap_or(spec.resources.workers);
    let mut orders: Vec<OsString> = vec!["plan".into(), "--workers".into(), workers.to_string().into()];
    if arguments.no_probe {
        orders.push("--no-probe".into());
    }
    let spec = serde_json::to_vec(&spec).context("cannot write the spec as JSON")?;
    let plan: Plan = worker::answer(&orders, &spec, output)?;
    for note in &plan.notes {
        output.talk(&format!("note: {note}"));
    }
    output.answer(&plan, || text(&plan))?;
    Ok(Verdict::Done)
}

fn text(plan: &Plan) -> String {
    let mut rows = vec![
        ("model".to_owned(), plan.model.clone()),
        ("workers".to_owned(), plan.workers.to_string()),
        ("parameters".to_owned(), parameters(plan)),
        ("stages".to_owned(), stages(plan)),
    ];
    let mut put = |name: &str, value: String| rows.push((name.to_owned(), value));
    if let Some(work) = &plan.work {
        put(
            "steps",
            format!("{}, {} an epoch of {} windows", work.steps, work.steps_per_epoch, work.windows),
        );
        put("windows", work.examples.to_string());
        put(
            "tokens",
            format!("{}; {:.2} % of {} with padding", work.tokens, 100.0 * work.padding, work.padded_tokens),
        );
        put("computing", format!("{:.1} TFLOP", work.flops / 1e12));
    }
    exchange(&plan.exchange, plan.workers, &mut put);
    if let Some(time) = &plan.time {
        put("a step", format!("{:.3} s on {} threads", time.step_seconds, time.threads));
        put(
            "speed",
            format!("{:.2} windows, {:.0} tokens a second", time.examples_per_second, time.tokens_per_second),
        );
        if let Some(seconds) = time.run_seconds {
            put("all steps", figures::duration(Duration::from_secs_f64(seconds)));
        }
    }
    let mut table = Table::new();
    table.add_rows(rows.into_iter().map(|(name, value)| [name, value]));
    report::plain(table) + "\n" + &memory(plan)
}

fn parameters(plan: &Plan) -> String {
    let all = &plan.parameters;
    match all.total - all.trainable {
        0 => format!("{}, all trained", all.total),
        frozen => format!("{}, {} trained, {frozen} frozen", all.total, all.trainable),
    }
}

/// Stages, those of like size together.
fn stages(plan: &Plan) -> String {
    let mut groups: Vec<(&str, u64, bool, usize)> = Vec::new();
    for stage in &plan.parameters.stages {
        match groups.last_mut() {
            Some((_, parameters, trainable, count))
                if (*parameters, *trainable) == (stage.parameters, stage.trainable) =>
            {
                *count += 1;
            }
            _ => groups.push((&stage.name, stage.parameters, stage.trainable, 1)),
        }
    }
    let shown = groups.iter().map(|(name, parameters, trainable, count)| {
        let more = if *count > 1 { format!(" and {} more, each", count - 1) } else { String::new() };
        let frozen = if *trainable { "" } else { " (frozen)" };
        format!("{name}{more} {parameters}{frozen}")
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn exchange(exchange: &Exchange, workers: u32, put: &mut impl FnMut(&str, String)) {
    if workers == 1 {
        return put("gradients", "one worker: nothing is summed".into());
    }
    let rows = exchange
        .touched_rows
        .map_or_else(String::new, |rows| format!(", with {rows:.0} rows of the word embeddings"));
    put(
        "gradients",
        format!("{} summed in a step{rows}; {} whole", mb(exchange.bytes), mb(exchange.dense_bytes as f64)),
    );
    if let Some(bytes) = exchange.compressed_bytes {
        put("compressed", format!("{} in 16 bits", mb(bytes)));
    }
    put("each sends", format!("{} in a step, where workers share no memory", mb(exchange.sent_bytes)));
    if let Some(bytes) = exchange.run_bytes {
        put("in the run", format!("{} summed", mb(bytes as f64)));
    }
}

/// Bytes in units of 10^6, as in docs and metrics.
fn mb(bytes: f64) -> String {
    format!("{:.2} MB", bytes / 1e6)
}

fn memory(plan: &Plan) -> String {
    let memory = &plan.memory;
    let shape = &plan.micro_batch;
    let mut table = Table::new();
    table.set_header(["MEMORY OF A WORKER", "SIZE"]);
    for (name, bytes) in [
        ("weights", memory.weights),
        ("weights in 16 bits", memory.shadow_weights),
        ("gradients", memory.gradients),
        ("moments", memory.moments),
        ("activations", memory.activations),
        ("in the middle of operations", memory.working),
        ("others' gradients, mapped", memory.mapped),
        ("program and libraries", memory.program),
        ("a worker", memory.worker),
        ("the first, with a checkpoint's copy", memory.first_worker),
    ] {
        if bytes > 0 {
            table.add_row([name.to_owned(), size(bytes)]);
        }
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{}\n{} windows of {} tokens: {} for activations and operations, with train.recompute {}\n",
        report::plain(table),
        shape.windows,
        shape.tokens,
        size(memory.without_recompute),
        size(memory.with_recompute)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A plan of two workers, as a worker tells it.
    fn told() -> Plan {
        let stage = |name: &str, parameters: u64, trainable: bool| json!({"name": name, "parameters": parameters, "trainable": trainable});
        let plan = json!({
            "model": "m", "workers": 2,
            "parameters": {"total": 100, "trainable": 70, "stages": [
                stage("embeddings", 30, false), stage("layer 0", 20, true), stage("layer 1", 20, true),
                stage("head", 30, true),
            ]},
            "micro_batch": {"windows": 8, "tokens": 384, "from_data": true},
            "memory": {
                "weights": 4 << 20, "shadow_weights": 0, "gradients": 3 << 20, "moments": 6 << 20,
                "activations": 500 << 20, "without_recompute": 501 << 20, "with_recompute": 40 << 20,
                "working": 1 << 20, "mapped": 1 << 20, "program": 256 << 20, "worker": 771 << 20,
                "checkpoint_copy": 12 << 20, "first_worker": 783 << 20,
            },
            "exchange": {
                "dense_bytes": 3_000_000, "touched_rows": 579.4, "bytes": 1_000_000.0, "compressed_bytes": 500_016.0,
                "sent_bytes": 500_016.0, "run_bytes": 60_000_000,
            },
            "work": {
                "windows": 1000, "steps_per_epoch": 62, "steps": 60, "examples": 960, "tokens": 96_000,
                "padded_tokens": 100_000, "padding": 0.04, "flops": 2e12,
            },
            "time": {
                "probed": [1.0, 2.0], "threads": 1, "step_seconds": 1.5, "run_seconds": 90.0,
                "examples_per_second": 10.6667, "tokens_per_second": 1066.67, "peak_rss_bytes": 700 << 20,
            },
            "notes": [],
        });
        serde_json::from_value(plan).unwrap()
    }

    #[test]
    fn people_get_every_part() {
        let text = text(&told());
        for words in [
            "100, 70 trained, 30 frozen",
            "embeddings 30 (frozen); layer 0 and 1 more, each 20; head 30",
            "60, 62 an epoch of 1000 windows",
            "4.00 % of 100000 with padding",
            "1.00 MB summed in a step, with 579 rows",
            "0.50 MB in 16 bits",
            "60.00 MB summed",
            "1.500 s on 1 threads",
            "1 min 30 s",
            "8 windows of 384 tokens: 501 MiB for activations and operations, with train.recompute 40 MiB",
            "783 MiB",
        ] {
            assert!(text.contains(words), "{words} not in\n{text}");
        }
        assert!(!text.contains("16 bits  "), "nothing is kept in 16 bits:\n{text}");
    }

    #[test]
    fn one_worker_sums_nothing() {
        let mut plan = told();
        (plan.workers, plan.work, plan.time) = (1, None, None);
        let text = text(&plan);
        assert!(text.contains("nothing is summed") && !text.contains("each sends"), "{text}");
        assert!(!text.contains("a step "), "{text}");
    }
}
