//! What a job will need, before it is started: see [`squad_proto::plan`] for what is told.
//!
//! | module | what it holds |
//! |---|---|
//! | [`memory`] | the formulas of a worker's memory |
//! | [`flops`] | floating-point operations of a micro-batch |
//! | [`work`] | steps, tokens and bytes of a run, counted as training will take them |
//! | [`probe`] | a few real steps |

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use squad_data::Tokenizer;
use squad_model::inputs::computes_padding;
use squad_model::network::Dropout;
use squad_model::{EncoderConfig, HeadKind, Network, StageSize, stage_sizes};
use squad_proto::JobSpec;
use squad_proto::plan::{MicroBatchShape, Parameters, Plan, StageParameters, Time, Work};
use squad_proto::spec::Compression;
use tch::Device;

use crate::error::TrainError;
use crate::measure::random_network;
use crate::prepare::{TrainSet, fits_layers, head_in, head_kind, precision, training_set};
use crate::report::Report;
use crate::step::classifier_dropout;
use crate::touched::Table;

pub mod flops;
pub mod memory;
pub mod probe;
pub mod work;

use flops::Flops;
use memory::Load;
use probe::Probe;
use work::Gradients;

/// What is planned for.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The job.
    pub spec: &'a JobSpec,
    /// Processes that share the work, at least one.
    pub workers: u32,
    /// What the model looks like.
    pub model: Shape,
    /// What computes.
    pub device: Device,
}

/// What a model looks like; its weights are not needed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The encoder.
    pub config: EncoderConfig,
    /// Its `config.json`.
    pub json: Map<String, Value>,
    /// Its folder, where it has one: a tokenizer is in it.
    pub folder: Option<PathBuf>,
}

/// Tells what the job will need; with `probes` also how long it will take, which takes a few steps.
///
/// # Errors
/// What the job would fail of: files that cannot be used, a model that does not fit the spec. Files that are not there
/// are no error: the plan says less, and says so.
pub fn plan(subject: &Subject<'_>, probes: bool, report: &dyn Report) -> Result<Plan, TrainError> {
    let Subject { spec, workers, model, device } = subject;
    let config = published(&model.config);
    fits_layers(spec, &config)?;
    let head = match &model.folder {
        Some(folder) => head_in(spec, folder)?,
        None => head_kind(spec),
    };
    let mut notes = Vec::new();
    let questions = questions(subject, report, &mut notes)?;
    let load = load(spec, (&config, head), stage_sizes(&config, head), device.is_cuda());
    let parameters = parameters(&load);
    let gradients = Gradients {
        trained: parameters.trainable,
        // A GPU's gradients travel whole.
        table: (load.first_trainable == 0 && !load.gpu).then(|| Table::of_config(&config)),
        travel: spec.comm.embedding_gradients,
        compression: if load.gpu { Compression::None } else { spec.comm.compression },
        workers: *workers,
    };
    let flops = Flops::of(&config, &load.stages, load.first_trainable);
    let (work, exchange) = match &questions {
        Some((set, pad_id)) => {
            let (work, exchange) =
                work::count(spec, (set, *pad_id), (&flops, computes_padding(*device)), &gradients);
            (Some(work), exchange)
        }
        None => (None, gradients.exchange(None, None, None)),
    };
    let micro_batch = largest(spec, questions.as_ref().map(|(set, _)| set));
    let memory = load.memory(micro_batch, *workers, exchange.bytes as u64);
    let time = if probes {
        let mut network = random_network((config.clone(), model.json.clone()), head, load.precision, *device);
        Some(time(subject, (micro_batch, work), &mut network, questions, &mut notes)?)
    } else {
        None
    };
    let (model, workers) = (spec.model.clone(), *workers);
    Ok(Plan { model, workers, parameters, micro_batch, memory, exchange, work, time, notes })
}

/// What memory follows from.
fn load<'a>(
    spec: &JobSpec,
    (config, head): (&'a EncoderConfig, HeadKind),
    stages: Vec<StageSize>,
    gpu: bool,
) -> Load<'a> {
    Load {
        config,
        head,
        stages,
        first_trainable: match spec.train.freeze_layers {
            0 => 0,
            frozen => frozen as usize + 1,
        },
        precision: precision(spec),
        dropout: Dropout {
            hidden: spec.train.dropout.unwrap_or(config.hidden_dropout),
            attention: spec.train.dropout.unwrap_or(config.attention_dropout),
            classifier: classifier_dropout(&spec.train),
        },
        recompute: spec.train.recompute,
        converts: !gpu && !squad_model::products::are_native(precision(spec)),
        gpu,
    }
}

/// Takes a few steps.
fn time(
    subject: &Subject<'_>,
    (shape, work): (MicroBatchShape, Option<Work>),
    network: &mut Network,
    questions: Option<(TrainSet, i32)>,
    notes: &mut Vec<String>,
) -> Result<Time, TrainError> {
    if subject.workers > 1 {
        notes.push(
            "the steps were taken by one worker: what workers of one machine take from each other, and the summing of \
             gradients (squadctl bench allreduce), come on top"
                .into(),
        );
    }
    let (features, pad_id) = match questions {
        Some((set, pad_id)) => (Some(set.features), pad_id),
        None => (None, 0),
    };
    Probe { spec: subject.spec, workers: subject.workers, shape, pad_id, work }.take(network, features)
}

/// The encoder without a segment table that is zero in all published files, and left out of training then.
fn published(config: &EncoderConfig) -> EncoderConfig {
    let type_vocab_size = if config.family.is_roberta() { 0 } else { config.type_vocab_size };
    EncoderConfig { type_vocab_size, ..config.clone() }
}

fn parameters(load: &Load<'_>) -> Parameters {
    let stage = |(number, stage): (usize, &StageSize)| StageParameters {
        name: stage.name.clone(),
        parameters: stage.parameters,
        trainable: number >= load.first_trainable,
    };
    let stages: Vec<StageParameters> = load.stages.iter().enumerate().map(stage).collect();
    let sum = |wanted: fn(&&StageParameters) -> bool| {
        stages.iter().filter(wanted).map(|stage| stage.parameters).sum::<u64>()
    };
    Parameters { total: sum(|_| true), trainable: sum(|stage| stage.trainable), stages }
}

/// The training set, and the padding token, where questions and tokenizer are at hand.
fn questions(
    subject: &Subject<'_>,
    report: &dyn Report,
    notes: &mut Vec<String>,
) -> Result<Option<(TrainSet, i32)>, TrainError> {
    let unknown = "steps, tokens and padding are not known, and windows are taken to be as long as can be";
    let Some(file) = &subject.spec.data.train else {
        notes.push(format!("data.train is not set: {unknown}"));
        return Ok(None);
    };
    if !Path::new(file).is_file() {
        notes.push(format!("{file} is not here: {unknown}"));
        return Ok(None);
    }
    let Some(folder) = &subject.model.folder else {
        notes.push(format!("the model's tokenizer is not here (squadctl models fetch brings it): {unknown}"));
        return Ok(None);
    };
    let tokenizer = Tokenizer::from_folder(folder)?;
    let set = training_set(subject.spec, (&subject.model.config, &subject.model.json), &tokenizer, report)?;
    Ok(Some((set, tokenizer.pad())))
}

/// The largest micro-batch: of windows that are as long as the longest.
fn largest(spec: &JobSpec, set: Option<&TrainSet>) -> MicroBatchShape {
    let longest = set.and_then(|set| set.features.lengths().into_iter().max());
    let length = longest.unwrap_or(spec.data.max_seq_length as usize) as u64;
    let tokens = length.next_multiple_of(u64::from(spec.data.pad_to_multiple.max(1)));
    let windows = match spec.data.tokens_per_batch {
        Some(budget) => (u64::from(budget) / tokens).max(1),
        None => u64::from(spec.train.batch_size),
    };
    MicroBatchShape { windows, tokens, from_data: longest.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use squad_proto::plan::Exchange;

    pub(super) fn bert(layers: i64, hidden: i64) -> EncoderConfig {
        let fields = json!({
            "model_type": "bert", "num_hidden_layers": layers, "hidden_size": hidden,
            "num_attention_heads": hidden / 64, "intermediate_size": 4 * hidden, "vocab_size": 30522,
            "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        });
        EncoderConfig::from_fields(fields.as_object().unwrap()).unwrap()
    }

    fn spec(changes: &Value) -> JobSpec {
        let mut spec = json!({
            "name": "a", "model": "m", "head": "span", "output_dir": "o", "data": {"max_seq_length": 380},
            "resources": {"workers": 2},
        });
        for (section, fields) in changes.as_object().unwrap() {
            for (field, value) in fields.as_object().unwrap() {
                spec[section][field] = value.clone();
            }
        }
        serde_json::from_value(spec).unwrap()
    }

    struct Silent;
    impl Report for Silent {
        fn tick(&self, _: squad_proto::Phase, _: u64, _: u64) {}
        fn progress(&self, _: squad_proto::Progress) {}
        fn note(&self, _: String) {}
    }

    fn planned(changes: &Value) -> Plan {
        let (spec, config) = (spec(changes), bert(12, 768));
        let model = Shape { config, json: Map::new(), folder: None };
        let subject = Subject { spec: &spec, workers: 2, model, device: Device::Cpu };
        plan(&subject, false, &Silent).unwrap()
    }

    #[test]
    fn without_files_the_plan_says_less_and_says_so() {
        let plan = planned(&json!({}));
        assert_eq!(plan.parameters.total, 108_891_648 + 2 * 768 + 2);
        assert_eq!(plan.parameters.total, plan.parameters.trainable);
        assert_eq!(plan.micro_batch, MicroBatchShape { windows: 8, tokens: 384, from_data: false });
        assert_eq!((plan.work, plan.time.as_ref()), (None, None));
        assert!(plan.notes[0].contains("data.train is not set"), "{:?}", plan.notes);
        let Exchange { dense_bytes, bytes, touched_rows, compressed_bytes, sent_bytes, run_bytes } =
            plan.exchange;
        assert_eq!((dense_bytes, bytes), (4 * (plan.parameters.total + 8), dense_bytes as f64));
        assert_eq!((touched_rows, compressed_bytes, run_bytes), (None, None, None));
        assert_eq!(sent_bytes, bytes, "two workers send it once each");
    }

    #[test]
    fn the_spec_shapes_the_plan() {
        let plan = planned(&json!({
            "train": {"freeze_layers": 3, "recompute": true}, "comm": {"compression": "bf16"},
            "data": {"tokens_per_batch": 1000, "train": "/nowhere/train.json"},
        }));
        let trainable: Vec<bool> = plan.parameters.stages.iter().map(|stage| stage.trainable).collect();
        assert_eq!(trainable, [vec![false; 4], vec![true; 10]].concat());
        assert_eq!(plan.micro_batch.windows, 2, "1000 tokens have room for two windows of 384");
        assert_eq!(plan.memory.activations + plan.memory.working, plan.memory.with_recompute);
        assert_eq!(plan.exchange.compressed_bytes, Some((plan.exchange.bytes - 32.0) / 2.0 + 32.0));
        assert!(plan.notes[0].contains("/nowhere/train.json is not here"), "{:?}", plan.notes);
    }
}
