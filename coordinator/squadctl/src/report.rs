//! A job as text: what came of it, or how it stands.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use squad_proto::{FailureReport, JobState};

use crate::figures;
use crate::job::Job;
use crate::output::Output;

/// Prints what came of a job that has ended: results on stdout, the reason of a failure on stderr.
pub(crate) fn ended(job: &Job, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.document(job);
    }
    let took = figures::duration(figures::between(job.created_unix_ms, job.finished_unix_ms.unwrap_or(0)));
    match job.state {
        JobState::Failed => {
            output.talk(&format!("{} {} failed after {took}", output.red("failed:"), job.id));
            match &job.failure {
                Some(failure) => output.talk(&failure_text(failure)),
                None => output.talk(&job.reason),
            }
            // A job of `run` is forgotten with its coordinator; its workers' words are not.
            let logs = Path::new(&job.output_dir).join("logs").join(&job.id);
            if logs.is_dir() {
                output.talk(&format!("all that the workers wrote: {}", logs.display()));
            }
            Ok(())
        }
        JobState::Cancelled => {
            output.talk(&format!("{} was cancelled after {took}: {}", job.id, job.reason));
            Ok(())
        }
        _ => {
            output.talk(&format!("{} succeeded in {took}", job.id));
            output.data(&results_text(job))
        }
    }
}

/// All about a job, for `get`.
pub(crate) fn details(job: &Job) -> String {
    let mut rows = vec![
        ("job", job.id.clone()),
        ("name", job.name.clone()),
        ("state", state(job)),
        ("workers", job.workers.to_string()),
        ("priority", job.priority.to_string()),
        ("output", job.output_dir.clone()),
        ("created", figures::moment(job.created_unix_ms)),
    ];
    if let Some(waits) = &job.waits {
        rows.insert(3, ("waiting", waits.clone()));
    }
    if !job.gpus.is_empty() {
        let numbers: Vec<String> = job.gpus.iter().map(u32::to_string).collect();
        rows.push(("GPUs", numbers.join(", ")));
    }
    rows.extend(job.started_unix_ms.map(|at| ("started", figures::moment(at))));
    rows.extend(job.finished_unix_ms.map(|at| ("finished", figures::moment(at))));
    if let Some(progress) = job.progress.as_ref().filter(|_| !job.state.is_final()) {
        let figures = figures::of(progress);
        rows.push((
            "progress",
            format!("{} {}/{}  {figures}", progress.phase, progress.done, progress.total),
        ));
    }
    let mut text = pairs(rows);
    if job.results.is_some() {
        text += &format!("\n{}", results_text(job));
    }
    if let Some(failure) = &job.failure {
        text += &format!("\n{}", failure_text(failure));
    }
    text
}

/// Jobs in a table, for `list`.
pub(crate) fn list(jobs: &[Job]) -> String {
    let mut table = Table::new();
    table.set_header(["JOB", "STATE", "WORKERS", "PRIORITY", "CREATED", "PROGRESS"]);
    for job in jobs {
        let (workers, priority) = (job.workers.to_string(), job.priority.to_string());
        let created = figures::moment(job.created_unix_ms);
        table.add_row([job.id.as_str(), job.state.as_str(), &workers, &priority, &created, &summary(job)]);
    }
    plain(table)
}

/// The state with its reason, where that says more.
fn state(job: &Job) -> String {
    if job.reason.is_empty() { job.state.to_string() } else { format!("{} ({})", job.state, job.reason) }
}

/// How far a job is, or what came of it, in a few words.
pub(crate) fn summary(job: &Job) -> String {
    if let Some(waits) = &job.waits {
        return waits.clone();
    }
    let figure = |key: &str| job.results.as_ref().and_then(|r| r.get(key)).and_then(Value::as_f64);
    match (&job.failure, &job.progress) {
        (Some(failure), _) => failure.code.to_string(),
        (None, Some(progress)) if !job.state.is_final() => {
            format!("{} {}/{}", progress.phase, progress.done, progress.total)
        }
        _ => match (figure("exact"), figure("f1")) {
            (Some(exact), Some(f1)) => format!("EM {exact:.2}  F1 {f1:.2}"),
            _ => String::new(),
        },
    }
}

/// The official figures, where everything is, and how fast it went.
fn results_text(job: &Job) -> String {
    let Some(results) = job.results.as_ref().and_then(Value::as_object) else { return String::new() };
    let mut text = String::new();
    let metrics: Vec<[String; 2]> = results.iter().filter_map(|(key, value)| metric(key, value)).collect();
    if !metrics.is_empty() {
        let mut table = Table::new();
        table.set_header(["metric", "value"]).add_rows(metrics);
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        text = plain(table) + "\n";
    }
    text + &pairs(facts(job, results))
}

/// Where everything is, and how fast it went.
fn facts(job: &Job, results: &serde_json::Map<String, Value>) -> Vec<(&'static str, String)> {
    let place = |name: &str| job.place(name);
    let mut rows = Vec::new();
    let train = results.get("train");
    if train.is_some() {
        rows.push(("model", place("model")));
    }
    if let Some(best) = results.get("best_ckpt").and_then(Value::as_str) {
        rows.push(("best checkpoint", best.to_owned()));
    }
    if results.contains_key("exact") {
        rows.push(("predictions", place("eval/predictions.json")));
    }
    if train.is_some() && job.elsewhere.is_some() {
        rows.push(("checkpoints", place("checkpoints")));
    }
    if let Some(finished) = job.finished_unix_ms {
        rows.push(("wall time", figures::duration(figures::between(job.created_unix_ms, finished))));
    }
    let number = |key: &str| train.and_then(|t| t.get(key)).and_then(Value::as_f64);
    if let (Some(steps), Some(rate)) = (number("steps"), number("examples_per_second")) {
        let loss = number("final_loss").map(|loss| format!(", final loss {loss:.4}")).unwrap_or_default();
        rows.push(("training", format!("{steps} steps, {rate:.1} examples/s{loss}")));
    }
    if let Some(bytes) = number("peak_rss_bytes").filter(|bytes| *bytes > 0.0) {
        rows.push(("memory", format!("{:.2} GiB at most in a worker", bytes / f64::from(1 << 30))));
    }
    rows
}

/// A row of the table, for the official script's keys.
fn metric(key: &str, value: &Value) -> Option<[String; 2]> {
    let official = matches!(key, "exact" | "f1" | "total")
        || ["HasAns_", "NoAns_", "best_exact", "best_f1", "revised_"]
            .iter()
            .any(|prefix| key.starts_with(prefix));
    let number = value.as_f64().filter(|_| official)?;
    let shown = if key.ends_with("total") {
        value.to_string()
    } else if key.ends_with("_thresh") {
        format!("{number:.4}")
    } else {
        format!("{number:.2}")
    };
    let name = if key == "exact" { "exact (EM)" } else { key };
    Some([name.to_owned(), shown])
}

/// Code, place and one sentence; what the worker said last; what to do.
fn failure_text(failure: &FailureReport) -> String {
    let mut text = format!("{failure}\n");
    if !failure.stderr_tail.is_empty() {
        text.push_str("last lines of the worker's standard error:\n");
        for line in &failure.stderr_tail {
            text += &format!("  | {line}\n");
        }
    }
    text + &format!("what to do: {}\nmore: squadctl explain {}", failure.remedy, failure.code)
}

/// Names and values, the values below each other.
fn pairs(rows: Vec<(&'static str, String)>) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.into_iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// The table without frame, and without blanks at the ends of its lines.
pub(crate) fn plain(mut table: Table) -> String {
    table.load_preset(presets::NOTHING);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Elsewhere;
    use serde_json::json;
    use squad_proto::{FailureCode, Phase, Progress};

    fn job(state: JobState) -> Job {
        Job {
            id: "quick-1a".into(),
            name: "quick".into(),
            state,
            reason: String::new(),
            created_unix_ms: 1_000,
            started_unix_ms: Some(1_500),
            finished_unix_ms: Some(152_000),
            workers: 2,
            priority: 0,
            waits: None,
            gpus: Vec::new(),
            units_per_second: None,
            remaining_ms: None,
            ranks: Vec::new(),
            output_dir: "/out".into(),
            elsewhere: None,
            submitter: None,
            progress: None,
            failure: None,
            results: None,
            spec: None,
        }
    }

    #[test]
    fn results_show_figures_places_and_speed() {
        let mut job = job(JobState::Succeeded);
        job.results = Some(
            json!({"exact": 41.2, "f1": 55.314, "total": 98, "HasAns_exact": 41.2, "best_f1_thresh": 0.5,
            "train": {"steps": 600, "examples_per_second": 31.25, "final_loss": 0.5, "peak_rss_bytes": 1 << 30},
            "weights_sha256": "abc"}),
        );
        let text = results_text(&job);
        for part in [
            "metric           value\nexact (EM)       41.20\nf1               55.31\ntotal               98\n",
            "best_f1_thresh  0.5000\n\nmodel",
            "model        /out/model\n",
            "predictions  /out/eval/predictions.json\n",
            "wall time    2 min 31 s\n",
            "training     600 steps, 31.2 examples/s, final loss 0.5000\n",
            "memory       1.00 GiB at most in a worker\n",
        ] {
            assert!(text.contains(part), "{part:?} not in\n{text}");
        }
        assert!(!text.contains("abc"));

        // Another machine's output folder, of which all came here but the model.
        job.elsewhere = Some(Elsewhere { host: "node7".into(), brought: vec!["eval".into()] });
        let text = results_text(&job);
        for part in [
            "model        node7:/out/model\n",
            "predictions  /out/eval/predictions.json\n",
            "checkpoints  node7:/out/checkpoints\n",
        ] {
            assert!(text.contains(part), "{part:?} not in\n{text}");
        }
    }

    #[test]
    fn an_evaluation_names_its_best_checkpoint_and_no_model() {
        let mut job = job(JobState::Succeeded);
        job.results =
            Some(json!({"exact": 1.0, "f1": 2.0, "total": 3, "best_ckpt": "/out/checkpoints/step-1"}));
        let text = results_text(&job);
        assert!(
            text.contains("best checkpoint  /out/checkpoints/step-1\n") && !text.contains("/out/model"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_has_code_place_sentence_tail_and_remedy() {
        let mut failure = FailureReport::new(FailureCode::WorkerDied, "killed by signal 9").of_rank(1);
        (failure.phase, failure.step) = (Some(Phase::Train), Some(7));
        failure.stderr_tail = vec!["last words".into()];
        let text = failure_text(&failure);
        assert!(text.starts_with("SQ-004 rank 1 in train at step 7: killed by signal 9\n"), "{text}");
        assert!(
            text.contains("  | last words\n") && text.contains("what to do: read the worker's last lines"),
            "{text}"
        );
        assert!(text.ends_with("squadctl explain SQ-004"), "{text}");
    }

    #[test]
    fn the_list_has_a_line_for_each_job() {
        let mut running = job(JobState::Running);
        running.progress = Some(Progress::new(Phase::Train, 5, 10));
        let mut failed = job(JobState::Failed);
        failed.failure = Some(FailureReport::new(FailureCode::Data, "no"));
        let mut queued = job(JobState::Queued);
        (queued.waits, queued.priority) = (Some("waits for 4 slots, 2 are free".into()), 7);
        let text = list(&[running, failed, queued.clone()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[3].contains("  7  ") && lines[3].ends_with("waits for 4 slots, 2 are free"), "{text}");
        let text = details(&queued);
        assert!(
            text.contains("waiting   waits for 4 slots, 2 are free\n") && text.contains("priority  7\n"),
            "{text}"
        );
        assert!(lines[1].contains("running") && lines[1].ends_with("train 5/10"), "{text}");
        assert!(lines[2].ends_with("SQ-001"), "{text}");
    }
}
