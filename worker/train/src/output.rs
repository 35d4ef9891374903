//! The files of an output folder.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};
use squad_model::Network;
use squad_proto::JobSpec;
use squad_proto::outputs::{OWNER, move_earlier_aside};

use crate::checkpoint::{list, replace_folder, write_file, write_json, write_model};
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::log::TrainSummary;
use crate::tensorboard::EventFile;

/// The file of figures, line by line.
pub const METRICS: &str = "metrics.jsonl";

/// One object of metrics.jsonl: the means since the line before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricsLine {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Passes over the training set so far.
    pub epoch: f64,
    /// Mean loss of the examples since the line before.
    pub loss: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Norm of this step's averaged gradient before clipping.
    pub grad_norm: f64,
    /// Factor on the loss; 1 in 32-bit training.
    pub loss_scale: f64,
    /// Examples a second over all ranks.
    pub examples_per_second: f64,
    /// Unpadded tokens a second over all ranks.
    pub tokens_per_second: f64,
    /// Seconds inside all-reduces since the line before, on rank 0.
    pub allreduce_seconds: f64,
    /// The part of it that nothing was computed behind.
    pub allreduce_exposed_seconds: f64,
    /// Share of the time inside all-reduces that something was computed behind: 0 to 1.
    pub allreduce_hidden_share: f64,
    /// Seconds since the line before that steps waited for their batches, and made tensors of them, on rank 0.
    pub collate_seconds: f64,
    /// Bytes of gradients that were summed over the ranks since the line before; 0 with one rank.
    pub bytes_reduced: u64,
}

/// metrics.jsonl, and the same figures for TensorBoard, open for writing.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: BufWriter<File>,
    events: EventFile,
}

impl MetricsFile {
    /// Goes on after step `done` of a run; later lines, which the run takes again, are dropped. 0 starts anew.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn go_on(output: &Path, done: u64) -> Result<Self, TrainError> {
        let path = output.join(METRICS);
        let text = if path.is_file() && done > 0 {
            // A killed process may have left half a line.
            let bytes = fs::read(&path).map_err(TrainError::output("read", &path))?;
            String::from_utf8_lossy(&bytes).into_owned()
        } else {
            String::new()
        };
        let step_of = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
        let kept = text.lines().filter(|line| step_of(line).is_some_and(|step| step <= done));
        write_file(&path, kept.flat_map(|line| [line, "\n"]).collect::<String>().as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(TrainError::output("open", &path))?;
        Ok(Self { path, file: BufWriter::new(file), events: EventFile::go_on(output, done)? })
    }

    /// Appends a line, and flushes it: somebody may be following.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, line: &MetricsLine) -> Result<(), TrainError> {
        let text = serde_json::to_string(line).map_err(|e| TrainError::Internal(e.to_string()))?;
        writeln!(self.file, "{text}")
            .and_then(|()| self.file.flush())
            .map_err(TrainError::output("write", &self.path))?;
        let scalars = [
            ("train/loss", line.loss),
            ("train/learning_rate", line.learning_rate),
            ("train/grad_norm", line.grad_norm),
            ("train/loss_scale", line.loss_scale),
            ("train/examples_per_second", line.examples_per_second),
            ("train/tokens_per_second", line.tokens_per_second),
            ("train/allreduce_seconds", line.allreduce_seconds),
            ("train/collate_seconds", line.collate_seconds),
        ];
        self.events.scalars(line.step, &scalars)
    }
}

/// Takes an output folder for this job alone, as long as the answer lives.
///
/// # Errors
/// When another job is at work in it, or it cannot be written.
pub fn claim(output: &Path) -> Result<File, TrainError> {
    fs::create_dir_all(output).map_err(TrainError::output("create", output))?;
    let path = output.join(".lock");
    let lock = File::create(&path).map_err(TrainError::output("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            let action = "use, because another job is at work in it,";
            Err(TrainError::output(action, output)(std::io::ErrorKind::ResourceBusy.into()))
        }
        Err(fs::TryLockError::Error(error)) => Err(TrainError::output("lock", &path)(error)),
    }
}

/// Makes the output folder ready for a training run that starts afresh: an earlier run's files go to `earlier/N`, so
/// nothing is lost and nothing of two runs is mixed. Gives the place they went to.
///
/// # Errors
/// When the folder cannot be written.
pub fn begin(spec: &JobSpec) -> Result<Option<PathBuf>, TrainError> {
    let moved = move_earlier_aside(Path::new(&spec.output_dir))
        .map_err(|error| TrainError::output("move", &error.path)(error.cause))?;
    go_on(spec)?;
    Ok(moved)
}

/// Makes the output folder ready for a run that goes on in it, where it is: only its spec is written again.
///
/// # Errors
/// When the folder cannot be written.
pub fn go_on(spec: &JobSpec) -> Result<(), TrainError> {
    write_file(&Path::new(&spec.output_dir).join("spec.yaml"), spec.to_yaml().as_bytes())
}

/// Writes down whose run the folder holds from now on.
///
/// # Errors
/// When it cannot be written.
pub fn own(output: &Path, job: &str) -> Result<(), TrainError> {
    write_file(&output.join(OWNER), job.as_bytes())
}

/// Whether the folder's run is that of this job: a later life of it goes on there, whatever became of the life before.
pub fn belongs_to(output: &Path, job: &str) -> bool {
    fs::read(output.join(OWNER)).is_ok_and(|owner| owner == job.as_bytes())
}

/// Whether an output folder holds something of a run that is worth keeping: more than a beginning without a checkpoint.
///
/// # Errors
/// When the folder cannot be listed.
pub fn holds_a_run(output: &Path) -> Result<bool, TrainError> {
    Ok(output.join("results.json").exists() || output.join("model").exists() || !list(output)?.is_empty())
}

/// Writes `model/`: the fine-tuned network as a Hugging Face folder with a card.
///
/// # Errors
/// When it cannot be written.
pub fn write_final_model(
    network: &Network,
    model_folder: &Path,
    spec: &JobSpec,
    results: &Value,
) -> Result<PathBuf, TrainError> {
    let target = Path::new(&spec.output_dir).join("model");
    replace_folder(&target, |folder| {
        write_model(network, model_folder, folder)?;
        write_file(&folder.join("README.md"), model_card(spec, results).as_bytes())
    })?;
    Ok(target)
}

fn model_card(spec: &JobSpec, results: &Value) -> String {
    let figure = |key: &str| results.get(key).and_then(Value::as_f64).map(|v| format!("- {key}: {v:.2}\n"));
    let figures: String = ["exact", "f1", "best_exact", "best_f1", "revised_exact", "revised_f1"]
        .into_iter()
        .filter_map(figure)
        .collect();
    format!(
        "---\ntags: [question-answering, squad]\n---\n# {}\n\nFine-tuned with Squadron from `{}`, {:?} head, on SQuAD {} format data.\n\n{}\n## Settings\n\n```yaml\n{}```\n",
        spec.name,
        spec.model,
        spec.head,
        spec.data.version,
        if figures.is_empty() { String::new() } else { format!("## Figures on the dev file\n\n{figures}") },
        spec.to_yaml()
    )
}

/// Writes the headline figures of a finished run for TensorBoard, at its last step.
///
/// # Errors
/// When they cannot be written.
pub fn write_final_scalars(output: &Path, step: u64, results: &Value) -> Result<(), TrainError> {
    let figures = [
        ("eval/exact", "exact"),
        ("eval/f1", "f1"),
        ("eval/best_exact", "best_exact"),
        ("eval/best_f1", "best_f1"),
    ];
    let scalars: Vec<(&str, f64)> =
        figures.into_iter().filter_map(|(tag, key)| Some((tag, results.get(key)?.as_f64()?))).collect();
    if scalars.is_empty() {
        return Ok(());
    }
    EventFile::create(output)?.scalars(step, &scalars)
}

/// Writes the files of `eval/`.
///
/// # Errors
/// When they cannot be written; then the folder is as it was.
pub fn write_evaluation(evaluation: &Evaluation, spec: &JobSpec) -> Result<(), TrainError> {
    let by_id = |value: &dyn Fn(&crate::evaluate::Answered) -> Value| -> Map<String, Value> {
        evaluation.answers.iter().map(|a| (a.id.clone(), value(a))).collect()
    };
    replace_folder(&Path::new(&spec.output_dir).join("eval"), |folder| {
        write_json(&folder.join("predictions.json"), &by_id(&|a| json!(a.text)))?;
        let n_best = by_id(&|a| {
            a.n_best
                .iter()
                .map(|(text, probability)| json!({"text": text, "probability": probability}))
                .collect()
        });
        write_json(&folder.join("nbest_predictions.json"), &n_best)?;
        write_json(&folder.join("na_prob.json"), &by_id(&|a| json!(a.null_odds)))?;
        // Without a threshold the answers stay as they are.
        let revised = evaluation.revision.as_ref().map(|revision| &revision.answers);
        let revised = by_id(&|a| json!(revised.and_then(|texts| texts.get(&a.id)).unwrap_or(&a.text)));
        write_json(&folder.join("revised_predictions.json"), &revised)
    })
}

/// The section of results.json that holds curves.
pub const CURVES: &str = "precision_recall";

/// The document of results.json: the official metric keys first, then the figures of the revised predictions and
/// their threshold, and the curves of precision against recall (version 2.0), `train` and `weights_sha256`.
///
/// # Errors
/// Should not be possible.
pub fn results(
    evaluation: Option<&Evaluation>,
    train: Option<&TrainSummary>,
    weights_sha256: &str,
) -> Result<Value, TrainError> {
    let internal = |e: serde_json::Error| TrainError::Internal(e.to_string());
    let mut all = Map::new();
    if let Some(evaluation) = evaluation
        && let Value::Object(keys) = serde_json::to_value(&evaluation.metrics).map_err(internal)?
    {
        all.extend(keys);
    }
    if let Some(revision) = evaluation.and_then(|evaluation| evaluation.revision.as_ref()) {
        all.insert("revised_exact".into(), json!(revision.exact));
        all.insert("revised_f1".into(), json!(revision.f1));
        all.insert("threshold".into(), serde_json::to_value(revision.threshold).map_err(internal)?);
    }
    if let Some(curves) = evaluation.and_then(|evaluation| evaluation.curves.as_ref()) {
        all.insert(CURVES.into(), serde_json::to_value(curves).map_err(internal)?);
    }
    if let Some(train) = train {
        all.insert("train".into(), serde_json::to_value(train).map_err(internal)?);
    }
    all.insert("weights_sha256".into(), json!(weights_sha256));
    Ok(Value::Object(all))
}

/// The largest resident set of this process so far, in bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
