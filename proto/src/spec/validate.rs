//! From text to a spec without problems, or all its problems at once.

use std::fmt;
use std::sync::OnceLock;

use serde_json::Value;
use thiserror::Error;

use super::schema_errors::describe;
use super::sections::{Backend, Compression, DeviceKind};
use super::{JobSpec, schema};

/// One thing wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `train.epochs`; empty for the document.
    pub path: String,
    /// What the spec has there.
    pub found: String,
    /// What is allowed there.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the document" } else { &self.path };
        write!(f, "{path}: found {}; allowed: {}", self.found, self.allowed)
    }
}

/// Why a text is not a job spec.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Neither YAML nor JSON.
    #[error("{source_name}: not readable as YAML: {message}")]
    Syntax {
        /// The file, or what else the text came from.
        source_name: String,
        /// The parser's words, with line and column.
        message: String,
    },
    /// Readable, with these problems.
    #[error("{source_name}: {} problem{} in the spec\n{}", .problems.len(), if .problems.len() == 1 { "" } else { "s" }, list(.problems))]
    Invalid {
        /// The file, or what else the text came from.
        source_name: String,
        /// All of them.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n")
}

/// A spec in which [`validate`] found nothing wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidSpec(JobSpec);

impl ValidSpec {
    /// The spec.
    pub fn get(&self) -> &JobSpec {
        &self.0
    }

    /// The spec, for a caller that goes on to resolve its paths.
    pub fn into_inner(self) -> JobSpec {
        self.0
    }
}

/// Reads YAML or JSON (which is YAML). `source_name` is named in errors.
///
/// # Errors
/// [`SpecError::Syntax`] with line and column.
pub fn parse(text: &str, source_name: &str) -> Result<Value, SpecError> {
    serde_norway::from_str(text)
        .map_err(|e| SpecError::Syntax { source_name: source_name.into(), message: e.to_string() })
}

/// Checks a spec against the schema and the rules between fields.
///
/// # Errors
/// [`SpecError::Invalid`] with every problem found.
pub fn validate(value: &Value, source_name: &str) -> Result<ValidSpec, SpecError> {
    let invalid = |problems| SpecError::Invalid { source_name: source_name.into(), problems };
    let value = version_as_text(numbers(value.clone()));
    let mut problems: Vec<Problem> = Vec::new();
    match validator() {
        Ok(validator) => {
            for error in validator.iter_errors(&value) {
                describe(&error, &mut problems);
            }
        }
        Err(message) => {
            problems.push(Problem { path: String::new(), found: message, allowed: "a schema".into() })
        }
    }
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    let spec: JobSpec = serde_json::from_value(value).map_err(|e| {
        invalid(vec![Problem {
            path: String::new(),
            found: e.to_string(),
            allowed: "see squadctl schema".into(),
        }])
    })?;
    cross_checks(&spec, &mut problems);
    if problems.is_empty() { Ok(ValidSpec(spec)) } else { Err(invalid(problems)) }
}

fn validator() -> Result<jsonschema::Validator, String> {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    jsonschema::validator_for(SCHEMA.get_or_init(schema)).map_err(|e| e.to_string())
}

/// YAML 1.1 reads `2e-5`, without a dot, as text; people mean a number. Only leaves of sections are
/// touched: names and paths at the top and in `data` stay text.
fn numbers(mut value: Value) -> Value {
    for section in ["train", "eval", "resources", "fault"] {
        let Some(Value::Object(fields)) = value.get_mut(section) else { continue };
        for field in fields.values_mut() {
            if let Value::String(text) = field
                && let Ok(number) = text.parse::<f64>()
                && let Some(number) = serde_json::Number::from_f64(number)
            {
                *field = Value::Number(number);
            }
        }
    }
    value
}

/// `version: 2.0` without quotes is a number to YAML, and to `--set data.version=1.1`; it means the name.
fn version_as_text(mut value: Value) -> Value {
    if let Some(version) = value.pointer_mut("/data/version")
        && let Value::Number(number) = version
    {
        *version = Value::String(number.to_string());
    }
    value
}

/// Rules between fields, and values that this version does not carry out yet.
fn cross_checks(spec: &JobSpec, problems: &mut Vec<Problem>) {
    let mut problem = |path: &str, found: String, allowed: &str| {
        problems.push(Problem { path: path.into(), found, allowed: allowed.into() });
    };
    let data = &spec.data;
    if data.train.is_none() && data.dev.is_none() {
        problem("data", "neither train nor dev".into(), "a file in data.train, in data.dev, or in both");
    }
    let capacity = data.max_seq_length.saturating_sub(4);
    if data.doc_stride > capacity {
        problem(
            "data.doc_stride",
            data.doc_stride.to_string(),
            &format!("at most {capacity}: a window of {} tokens holds no more context", data.max_seq_length),
        );
    }
    let widest = data.max_seq_length.next_multiple_of(data.pad_to_multiple);
    if let Some(tokens) = data.tokens_per_batch
        && tokens < widest
    {
        problem(
            "data.tokens_per_batch",
            tokens.to_string(),
            &format!("at least {widest}, or null: a window of data.max_seq_length, padded, must fit"),
        );
    }
    if let Some(tokens) = data.tokens_per_batch
        && !data.group_by_length
    {
        problem(
            "data.tokens_per_batch",
            tokens.to_string(),
            "null, or data.group_by_length: true: a budget is for windows of like length",
        );
    }
    threshold_source(spec, &mut problem);
    let train = &spec.train;
    if train.steps.is_none() && train.epochs <= 0.0 {
        problem("train.epochs", train.epochs.to_string(), "more than 0, unless train.steps is given");
    }
    if let (Some(warmup), Some(steps)) = (train.warmup_steps, train.steps)
        && warmup > steps
    {
        problem("train.warmup_steps", warmup.to_string(), &format!("at most train.steps, which is {steps}"));
    }
    if train.layerwise_decay == Some(0.0) {
        problem("train.layerwise_decay", "0".into(), "more than 0, or null for none");
    }
    if let Some(least) = spec.resources.min_workers
        && least > spec.resources.workers
    {
        problem(
            "resources.min_workers",
            least.to_string(),
            &format!("at most resources.workers, which is {}", spec.resources.workers),
        );
    }
    gpus(spec, &mut problem);
    not_yet(spec, &mut problem);
}

/// What a share of the training questions as `eval.threshold_from` needs.
fn threshold_source(spec: &JobSpec, problem: &mut impl FnMut(&str, String, &str)) {
    let Some(share) = spec.eval.threshold_from.held_out_share() else { return };
    let field = "eval.threshold_from";
    if spec.data.train.is_none() {
        problem(field, share.to_string(), "\"dev\", unless data.train is set: a share of it is meant");
    }
    if spec.data.version == "1.1" {
        problem(field, share.to_string(), "\"dev\": in version 1.1 every question has an answer");
    }
}

/// What GPUs and backends ask of each other's fields.
fn gpus(spec: &JobSpec, problem: &mut impl FnMut(&str, String, &str)) {
    let device = spec.resources.device;
    if spec.comm.backend == Backend::Nccl && device != DeviceKind::Cuda {
        problem(
            "comm.backend",
            "nccl".into(),
            "ring or auto, unless resources.device is cuda: NCCL is between GPUs",
        );
    }
    let nccl = spec.comm.backend == Backend::Nccl
        || (spec.comm.backend == Backend::Auto && device == DeviceKind::Cuda);
    if nccl && spec.comm.compression != Compression::None {
        let value = format!("{:?}", spec.comm.compression).to_lowercase();
        problem("comm.compression", value, "none: NCCL sends gradients as they are");
    }
    if spec.comm.backend == Backend::Server && spec.comm.compression != Compression::None {
        let value = format!("{:?}", spec.comm.compression).to_lowercase();
        problem("comm.compression", value, "none: a server gets gradients as they are");
    }
    if spec.comm.backend == Backend::Nccl && spec.comm.compression != Compression::None {
        problem(
            "comm.compression",
            "a 16-bit format".into(),
            "none, unless comm.backend is ring: NCCL sums 32 bits",
        );
    }
    let Some(gpus) = &spec.resources.gpus else { return };
    if device == DeviceKind::Cpu {
        problem("resources.gpus", format!("{gpus:?}"), "null, unless resources.device is cuda or auto");
    }
    let distinct: std::collections::BTreeSet<u32> = gpus.iter().copied().collect();
    if gpus.is_empty() || distinct.len() < gpus.len() {
        problem("resources.gpus", format!("{gpus:?}"), "null for all, or the numbers of GPUs, each once");
    }
}

/// Fields of the format whose machinery this version lacks: refused, never ignored.
fn not_yet(spec: &JobSpec, problem: &mut impl FnMut(&str, String, &str)) {
    if let Some(every) = spec.eval.every {
        problem("eval.every", every.to_string(), "null: evaluation during training is not available yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({"name": "a-1", "model": "m", "data": {"train": "t.json"}, "output_dir": "out"})
    }

    fn problems(change: impl FnOnce(&mut Value)) -> Vec<Problem> {
        let mut spec = minimal();
        change(&mut spec);
        match validate(&spec, "job.yaml") {
            Ok(_) => Vec::new(),
            Err(SpecError::Invalid { problems, .. }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn defaults_are_the_replaced_programs() {
        let spec = validate(&minimal(), "job.yaml").unwrap().into_inner();
        assert_eq!((spec.train.batch_size, spec.train.epochs, spec.train.adam_epsilon), (8, 3.0, 1e-6));
        assert_eq!(spec.data.window, super::super::Window::Step);
        assert!(!spec.train.bias_correction);
    }

    #[test]
    fn names_every_problem_at_once() {
        let found = problems(|s| {
            s["train"] = json!({"epoch": 3, "batch_size": 0, "optimizer": "sgd", "learning_rate": "fast"});
            s["name"] = json!("Bad Name");
            s.as_object_mut().unwrap().remove("model");
        });
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        for expected in [
            "train.epoch: found a field that does not exist; allowed: did you mean epochs?",
            "train.batch_size: found 0; allowed: at least 1",
            "train.learning_rate: found \"fast\"; allowed: number",
            "model: found nothing; allowed: a value: it is required",
            "name: found \"Bad Name\"; allowed: lower-case letters, digits and hyphens, not starting or ending with a hyphen",
        ] {
            assert!(text.iter().any(|t| t == expected), "missing {expected:?} in {text:#?}");
        }
        assert!(
            text.iter().any(|t| t.starts_with("train.optimizer: found \"sgd\"; allowed: \"adamw\"")),
            "{text:#?}"
        );
        assert_eq!(found.len(), 6, "{text:#?}");
    }

    #[test]
    fn numbers_without_a_dot_are_numbers() {
        let value =
            parse("name: a\nmodel: m\ndata: {dev: d}\noutput_dir: o\ntrain: {learning_rate: 2e-4}\n", "j")
                .unwrap();
        assert_eq!(validate(&value, "j").unwrap().get().train.learning_rate, 2e-4);
    }

    #[test]
    fn a_version_needs_no_quotes() {
        for version in ["1.1", "2.0", "\"2.0\""] {
            let text = format!("name: a\nmodel: m\ndata: {{dev: d, version: {version}}}\noutput_dir: o\n");
            let spec = validate(&parse(&text, "j").unwrap(), "j").unwrap().into_inner();
            assert_eq!(spec.data.version, version.trim_matches('"'));
        }
        let found = problems(|s| s["data"] = json!({"dev": "d", "version": 3}));
        assert_eq!(found[0].to_string(), "data.version: found \"3\"; allowed: \"1.1\", \"2.0\"");
    }

    #[test]
    fn separators_are_the_models_own_or_single() {
        let of = |data: Value| {
            let mut spec = minimal();
            spec["data"] = data;
            validate(&spec, "j").map(|spec| spec.into_inner().data.separators)
        };
        assert_eq!(of(json!({"dev": "d"})).unwrap(), super::super::Separators::Auto);
        assert_eq!(
            of(json!({"dev": "d", "separators": "single"})).unwrap(),
            super::super::Separators::Single
        );
        let refused = of(json!({"dev": "d", "separators": "double"})).unwrap_err().to_string();
        assert!(
            refused.contains("data.separators: found \"double\"; allowed: \"auto\", \"single\""),
            "{refused}"
        );
    }

    #[test]
    fn fields_without_machinery_are_refused_by_name() {
        let found = problems(|s| {
            s["eval"] = json!({"every": 10});
        });
        assert_eq!(found.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["eval.every"]);
    }

    #[test]
    fn gpus_are_named_once_and_nccl_is_between_gpus() {
        let of = |resources: Value, backend: &str| {
            let found = problems(|s| {
                s["resources"] = resources;
                s["comm"] = json!({"backend": backend});
            });
            found.into_iter().map(|p| p.path).collect::<Vec<_>>()
        };
        assert_eq!(of(json!({"device": "cuda", "gpus": [1, 0]}), "nccl"), [""; 0]);
        assert_eq!(of(json!({"device": "auto", "gpus": [2]}), "auto"), [""; 0]);
        assert_eq!(of(json!({"device": "cuda", "gpus": [0, 0]}), "ring"), ["resources.gpus"]);
        assert_eq!(of(json!({"gpus": []}), "auto"), ["resources.gpus"]);
        assert_eq!(of(json!({"device": "cpu", "gpus": [0]}), "nccl"), ["comm.backend", "resources.gpus"]);
        assert_eq!(of(json!({}), "nccl"), ["comm.backend"]);
    }

    #[test]
    fn rules_between_fields() {
        let found = problems(|s| s["data"] = json!({"doc_stride": 128, "max_seq_length": 64}));
        assert_eq!(found.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["data", "data.doc_stride"]);
    }

    #[test]
    fn a_token_budget_holds_the_longest_window() {
        let of = |budget: u32| {
            problems(|s| {
                let lengths = json!({"train": "t", "max_seq_length": 380, "pad_to_multiple": 16});
                s["data"] = lengths;
                s["data"]["tokens_per_batch"] = json!(budget);
            })
        };
        assert_eq!(of(384), []);
        assert_eq!(
            of(383)[0].to_string(),
            "data.tokens_per_batch: found 383; allowed: at least 384, or null: a window of data.max_seq_length, \
             padded, must fit"
        );
        assert_eq!(of(0)[0].to_string(), "data.tokens_per_batch: found 0; allowed: at least 1");
        let ungrouped = problems(|s| {
            s["data"] = json!({"train": "t", "tokens_per_batch": 1000, "group_by_length": false});
        });
        assert_eq!(
            ungrouped[0].to_string(),
            "data.tokens_per_batch: found 1000; allowed: null, or data.group_by_length: true: a budget is for windows of like length"
        );
    }

    #[test]
    fn a_threshold_comes_from_dev_or_from_a_share_of_train() {
        let of = |source: Value| {
            let mut spec = minimal();
            spec["eval"] = json!({"threshold_from": source});
            validate(&spec, "j").map(|spec| spec.into_inner().eval.threshold_from)
        };
        assert_eq!(of(json!("dev")).unwrap().held_out_share(), None);
        assert_eq!(of(json!(0.05)).unwrap().held_out_share(), Some(0.05));
        assert_eq!(of(json!("5e-2")).unwrap().held_out_share(), Some(0.05), "YAML reads 5e-2 as text");
        for wrong in [json!(0), json!(0.5), json!(-0.1), json!(7), json!("train"), json!(null), json!([0.1])]
        {
            let refused = of(wrong.clone()).unwrap_err().to_string();
            let expected = format!(
                "eval.threshold_from: found {wrong}; allowed: \"dev\", a number more than 0 and less than 0.5"
            );
            assert!(refused.contains(&expected), "{refused}");
        }
        for (spec, reason) in
            [(json!({"dev": "d"}), "unless data.train"), (json!({"train": "t", "version": "1.1"}), "1.1")]
        {
            let found = problems(|s| {
                s["eval"] = json!({"threshold_from": 0.1});
                s["data"] = spec;
            });
            assert_eq!((found.len(), found[0].path.as_str()), (1, "eval.threshold_from"));
            assert!(found[0].allowed.contains(reason), "{}", found[0]);
        }
    }

    #[test]
    fn fewest_workers_are_no_more_than_all() {
        let of = |least: u32| problems(|s| s["resources"] = json!({"workers": 2, "min_workers": least}));
        let found = of(3);
        assert_eq!((found.len(), found[0].path.as_str()), (1, "resources.min_workers"));
        assert_eq!(found[0].allowed, "at most resources.workers, which is 2");
        for fine in [1, 2] {
            let mut spec = minimal();
            spec["resources"] = json!({"workers": 2, "min_workers": fine});
            assert!(validate(&spec, "j").is_ok(), "{fine}");
        }
    }

    #[test]
    fn broken_yaml_names_line() {
        let error = parse("name: a\n  model: [", "job.yaml").unwrap_err().to_string();
        assert!(error.starts_with("job.yaml: not readable as YAML") && error.contains("line"), "{error}");
    }

    #[test]
    fn resolved_spec_reads_back() {
        for source in [json!("dev"), json!(0.05)] {
            let mut spec = minimal();
            spec["eval"] = json!({"threshold_from": source});
            let spec = validate(&spec, "j").unwrap().into_inner();
            let again = validate(&parse(&spec.to_yaml(), "j").unwrap(), "j").unwrap().into_inner();
            assert_eq!(spec, again);
        }
    }
}
