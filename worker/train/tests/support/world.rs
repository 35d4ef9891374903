//! A small model, a small question set, and a gang of ranks as threads of this process.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use squad_collective::{Background, Compression, Fence, RingListener, Topology, Transport};
use squad_model::{EncoderConfig, HeadKind, Network};
use squad_proto::{JobSpec, Phase, Progress, Task};
use squad_train::portion::{Collator, OnDemand};
use squad_train::prepare::TrainSet;
use squad_train::run::Outcome;
use squad_train::{Prepared, Report, StopSignal, TrainError};
use tch::Device;

/// Words of the made-up language; each is one token.
const WORDS: usize = 60;

/// A folder with a model, a train file and a dev file.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `hidden` and `layers` shape the model; `questions` is the size of the training set.
    pub(crate) fn new(hidden: i64, layers: i64, questions: usize) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let model = place.path().join("model");
        std::fs::create_dir(&model).unwrap();
        let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let vocabulary: Vec<String> =
            specials.into_iter().chain((0..WORDS).map(|k| format!("w{k}"))).collect();
        std::fs::write(model.join("vocab.txt"), vocabulary.join("\n")).unwrap();
        std::fs::write(model.join("tokenizer_config.json"), r#"{"do_lower_case": true}"#).unwrap();
        let Value::Object(fields) = json!({
            "model_type": "bert", "vocab_size": vocabulary.len(), "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": 4, "intermediate_size": 2 * hidden, "max_position_embeddings": 160,
            "type_vocab_size": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        }) else {
            unreachable!()
        };
        let config = EncoderConfig::from_fields(&fields).unwrap();
        let mut network = Network::new(config, fields, HeadKind::Span, Device::Cpu);
        (0..network.stages().len()).for_each(|stage| network.initialise(stage, 3));
        squad_train::checkpoint::write_model(&network, &model, &model).unwrap();
        for (name, count) in [("train.json", questions), ("dev.json", 12)] {
            std::fs::write(place.path().join(name), squad(count).to_string()).unwrap();
        }
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The spec with these changes to its sections.
    pub(crate) fn spec(&self, output: &str, changes: Value) -> JobSpec {
        let mut spec = json!({
            "name": "test", "model": "model", "head": "span", "output_dir": output,
            "data": {"train": "train.json", "dev": "dev.json", "version": "2.0", "max_seq_length": 64, "doc_stride": 32},
            "train": {"learning_rate": 1e-3, "batch_size": 2, "log_every": 1},
            "resources": {"workers": 4},
        });
        for (section, fields) in changes.as_object().unwrap() {
            match fields.as_object() {
                Some(fields) => {
                    for (field, value) in fields {
                        spec[section][field] = value.clone();
                    }
                }
                None => spec[section] = fields.clone(),
            }
        }
        let mut spec = squad_proto::spec::validate(&spec, "test").unwrap().into_inner();
        spec.resolve_paths(self.path());
        spec
    }

    /// Runs the spec with `world` ranks; gives rank 0's outcome.
    pub(crate) fn run(&self, spec: &JobSpec, world: usize) -> Result<Outcome, TrainError> {
        self.run_task(spec, &Task::default(), world, &StopSignal::new())
    }

    pub(crate) fn run_task(
        &self,
        spec: &JobSpec,
        task: &Task,
        world: usize,
        stop: &StopSignal,
    ) -> Result<Outcome, TrainError> {
        self.run_told(spec, task, world, (&Notes::default(), stop))
    }

    /// The same with what was said on the way.
    pub(crate) fn run_noted(
        &self,
        spec: &JobSpec,
        task: &Task,
        world: usize,
    ) -> (Result<Outcome, TrainError>, Vec<String>) {
        let notes = Notes::default();
        let outcome = self.run_told(spec, task, world, (&notes, &StopSignal::new()));
        (outcome, notes.0.into_inner().unwrap())
    }

    fn run_told(
        &self,
        spec: &JobSpec,
        task: &Task,
        world: usize,
        (notes, stop): (&Notes, &StopSignal),
    ) -> Result<Outcome, TrainError> {
        let model = self.path().join("model");
        let mut outcomes = gang(world, |collective| {
            let prepared = squad_train::prepare(spec, task, &model, notes)?;
            squad_train::run(prepared, &collective, spec, task, (notes, stop))
        });
        for outcome in outcomes.drain(1..) {
            outcome.unwrap();
        }
        outcomes.remove(0)
    }

    /// Lines of an output folder's metrics.jsonl.
    pub(crate) fn metrics(&self, output: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path().join(output).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn losses(&self, output: &str) -> Vec<f64> {
        self.metrics(output).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    }
}

/// Runs `work` as every rank of a ring.
pub(crate) fn gang<T: Send>(world: usize, work: impl Fn(Background) -> T + Send + Sync) -> Vec<T> {
    gang_over(world, (Transport::Auto, Compression::None), work)
}

/// Runs `work` as every rank of a ring over this transport.
pub(crate) fn gang_over<T: Send>(
    world: usize,
    (transport, compression): (Transport, Compression),
    work: impl Fn(Background) -> T + Send + Sync,
) -> Vec<T> {
    // Every rank would start threads of its own, and they would spin against each other.
    tch::set_num_threads(1);
    let listeners: Vec<RingListener> =
        (0..world).map(|_| RingListener::bind([127, 0, 0, 1].into()).unwrap()).collect();
    let peers: Vec<_> = listeners.iter().map(RingListener::local_addr).collect();
    let work = Arc::new(work);
    std::thread::scope(|scope| {
        let ranks: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(rank, listener)| {
                let (peers, work) = (peers.clone(), work.clone());
                scope.spawn(move || {
                    let fence =
                        Fence { job: "test".into(), generation: 1, token: "t".into(), layout: [0; 32] };
                    let (patience, host) = (Duration::from_secs(60), None);
                    let topology =
                        Topology { rank, world, peers, fence, patience, transport, compression, host };
                    let ring = squad_collective::connect(listener, topology);
                    work(Background::start(ring.unwrap()))
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// A rank's portions, made when they are asked for.
pub(crate) fn on_demand<'a>(
    spec: &JobSpec,
    prepared: &Prepared,
    collective: &Background,
    set: &'a TrainSet,
) -> OnDemand<'a> {
    OnDemand::new(Collator::new(spec, &prepared.network, prepared.pad_id, collective), set)
}

/// What ranks say.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<String>>);

impl Report for Notes {
    fn tick(&self, _: Phase, _: u64, _: u64) {}
    fn progress(&self, _: Progress) {}
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

/// Questions about made-up paragraphs of varied length: "w7 ?" is answered by the word after w7. Every
/// fourth has no answer.
fn squad(questions: usize) -> Value {
    let paragraphs: Vec<Value> = (0..questions)
        .map(|number| {
            let length = 12 + (number * 29) % 60;
            let words: Vec<String> =
                (0..length).map(|k| format!("w{}", (number * 7 + k * 11) % WORDS)).collect();
            let at = (number * 5) % (length - 1);
            let start: usize = words[..=at].iter().map(|w| w.len() + 1).sum();
            let impossible = number % 4 == 3;
            let answers =
                if impossible { json!([]) } else { json!([{"text": words[at + 1], "answer_start": start}]) };
            let question = json!({
                "id": format!("q{number}"), "question": format!("{} ?", words[at]),
                "is_impossible": impossible, "answers": answers,
            });
            json!({"context": words.join(" "), "qas": [question]})
        })
        .collect();
    json!({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]})
}

/// Where the complete checkpoints of an output folder are.
pub(crate) fn checkpoints(place: &Place, output: &str) -> Vec<PathBuf> {
    squad_train::checkpoint::list(&place.path().join(output)).unwrap()
}
