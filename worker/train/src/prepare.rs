//! Files to network and features: everything that can fail before ranks meet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use squad_data::split::{Split, hold_out};
use squad_data::{
    BatchSize, Dataset, FeatureCache, FeatureSettings, Features, Opened, PairLayout, Purpose, Sampler,
    TokenBudget, Tokenizer,
};
use squad_model::heads::HeadKind;
use squad_model::{EncoderConfig, Network, Precision, load_network, save};
use squad_proto::spec::{DataType, Head, JobSpec, Separators};
use squad_proto::task::Checkpoint;
use squad_proto::{Deadlines, Phase, Task};
use tch::Device;

use crate::checkpoint::{self, find};
use crate::error::TrainError;
use crate::report::Report;
use crate::resume::{self, Origin, Resumed};

/// A rank that is ready to begin.
#[derive(Debug)]
pub struct Prepared {
    /// The network with its weights.
    pub network: Network,
    /// Where the model came from: its tokenizer files are copied on.
    pub model_folder: PathBuf,
    /// The padding token.
    pub pad_id: i32,
    /// What to train on; absent when only evaluating.
    pub train: Option<TrainSet>,
    /// Training questions that are held out of training, to tune the threshold on; absent where the spec holds
    /// none out, or there is nothing to evaluate.
    pub held_out: Option<DevSet>,
    /// What to evaluate on.
    pub dev: Option<DevSet>,
    /// The weights to evaluate, where evaluating is the whole task; empty otherwise.
    pub checkpoints: Vec<PathBuf>,
    /// The newest checkpoint of this run in the output folder as this rank sees it, read; `None` where there is none.
    pub resumed: Option<Resumed>,
    /// Where all ranks go on from, once that is known; `None`: from what this rank has.
    pub origin: Option<Origin>,
    /// The checkpoints to evaluate, in a form that ranks can compare; empty where they are given by path.
    pub evaluated: String,
    /// How often the gang was restarted before, for the results.
    pub restarts: u32,
    /// Which job this is, for the output folder; empty where it does not matter.
    pub job: String,
    /// SHA-256 over everything that the features of all sets hold.
    pub data_hash: [u8; 32],
}

impl Prepared {
    /// Step and identity of the checkpoint that this rank holds and could go on from.
    pub fn held(&self) -> Option<(u64, &str)> {
        self.resumed.as_ref().map(|r| (r.state.step, r.checkpoint.identity.as_str()))
    }
}

/// What to train on.
#[derive(Debug)]
pub struct TrainSet {
    /// All windows of all questions.
    pub features: Features,
    /// Their order.
    pub sampler: Sampler,
}

/// What to evaluate on.
#[derive(Debug)]
pub struct DevSet {
    /// The questions.
    pub dataset: Dataset,
    /// Their windows.
    pub features: Features,
}

/// The head that a spec asks for.
pub fn head_kind(spec: &JobSpec) -> HeadKind {
    match spec.head {
        Head::Conditional => HeadKind::CONDITIONAL,
        Head::Span => HeadKind::Span,
    }
}

/// The head that a spec asks for, in the width that the folder's has if it is of that kind.
///
/// # Errors
/// When the folder's `config.json` cannot be used.
pub fn head_in(spec: &JobSpec, folder: &Path) -> Result<HeadKind, TrainError> {
    let wanted = head_kind(spec);
    let found = save::head_of(&EncoderConfig::read(folder)?.json);
    Ok(match (wanted, found) {
        (HeadKind::Conditional { .. }, Some(found @ HeadKind::Conditional { .. })) => found,
        _ => wanted,
    })
}

/// The number format that a spec asks for.
pub fn precision(spec: &JobSpec) -> Precision {
    match spec.train.dtype {
        DataType::Float32 => Precision::Float32,
        DataType::Float16 => Precision::Float16,
        DataType::Bfloat16 => Precision::BFloat16,
    }
}

/// What should be said of a number format that this processor has no products in.
fn slow_format(precision: Precision) -> Option<String> {
    (!squad_model::products::are_native(precision)).then(|| {
        format!(
            "train.dtype is {}, in which this processor cannot multiply: products are computed in 32 bits and rounded, \
             which is as accurate and no faster than float32",
            precision.name()
        )
    })
}

/// Loads data, tokenizer and weights, and builds the features, to compute on the CPU.
///
/// # Errors
/// One sentence about the file at fault.
pub fn prepare(
    spec: &JobSpec,
    task: &Task,
    model_folder: &Path,
    report: &dyn Report,
) -> Result<Prepared, TrainError> {
    prepare_on(Device::Cpu, spec, task, model_folder, report)
}

/// The same to compute on `device`.
///
/// # Errors
/// One sentence about the file at fault.
pub fn prepare_on(
    device: Device,
    spec: &JobSpec,
    task: &Task,
    model_folder: &Path,
    report: &dyn Report,
) -> Result<Prepared, TrainError> {
    const STAGES: u64 = 4;
    report.tick(Phase::Prepare, 0, STAGES);
    let (checkpoints, evaluated) = checkpoints_of(spec, task, report)?;
    let start = match task {
        Task::Train { resume: true, .. } => resume::find(Path::new(&spec.output_dir), report)?,
        _ => None,
    };
    let checkpoint = start.as_ref().map(|start| &start.folder).or(checkpoints.first());
    let weights_folder = checkpoint
        .cloned()
        .or(spec.train.init_from.as_ref().map(PathBuf::from))
        .unwrap_or_else(|| model_folder.to_owned());
    let tokenizer = Tokenizer::from_folder(model_folder)?;
    report.tick(Phase::Prepare, 1, STAGES);
    let mut network = load(device, spec, task, &weights_folder, report)?;
    fits(spec, network.config(), &tokenizer)?;
    let settings = settings(spec, network.config_json(), &tokenizer);
    if settings.layout != tokenizer.layout() {
        save::note_single_separator(network.config_json_mut());
    }
    report.tick(Phase::Prepare, 2, STAGES);

    let deadlines = Deadlines::from_patience(Duration::from_secs_f64(spec.fault.patience_s));
    let cache = FeatureCache::from_env(deadlines.features);
    let mut cutting = Cutting::new(&tokenizer, settings, cache, report)?;
    let train_file = spec.data.train.as_deref().unwrap_or_default();
    let (train, held_out) = training_questions(spec, task, report)?;
    let train = match train {
        Some(dataset) => Some(cutting.trained_on(spec, train_file, &dataset)?),
        None => None,
    };
    let held_out = match held_out {
        Some(dataset) => Some(cutting.evaluated(&format!("{train_file}, held out"), dataset)?),
        None => None,
    };
    report.tick(Phase::Prepare, 3, STAGES);
    let dev = match &spec.data.dev {
        Some(path) => Some(cutting.evaluated(path, read(path, report)?)?),
        None => None,
    };
    let resumed =
        start.zip(train.as_ref()).map(|(start, set)| resume::load(start, spec, &network, set)).transpose()?;
    report.tick(Phase::Prepare, STAGES, STAGES);
    Ok(Prepared {
        network,
        model_folder: model_folder.to_owned(),
        pad_id: tokenizer.pad(),
        train,
        held_out,
        dev,
        checkpoints,
        resumed,
        origin: None,
        evaluated,
        restarts: 0,
        job: String::new(),
        data_hash: cutting.hash.finalize().into(),
    })
}

/// The training set of a spec without its network: windows and their order.
///
/// # Errors
/// One sentence about the file at fault, or about what does not fit together.
pub(crate) fn training_set(
    spec: &JobSpec,
    (config, json): (&EncoderConfig, &Map<String, Value>),
    tokenizer: &Tokenizer,
    report: &dyn Report,
) -> Result<TrainSet, TrainError> {
    fits(spec, config, tokenizer)?;
    let deadlines = Deadlines::from_patience(Duration::from_secs_f64(spec.fault.patience_s));
    let cache = FeatureCache::from_env(deadlines.features);
    let mut cutting = Cutting::new(tokenizer, settings(spec, json, tokenizer), cache, report)?;
    let task = Task::default();
    let (Some(dataset), _) = training_questions(spec, &task, report)? else {
        return Err(TrainError::Unfit("there is nothing to train on: data.train is not set".into()));
    };
    cutting.trained_on(spec, spec.data.train.as_deref().unwrap_or_default(), &dataset)
}

/// Cuts question sets into features, and hashes what it cut.
struct Cutting<'a> {
    tokenizer: &'a Tokenizer,
    settings: FeatureSettings,
    cache: FeatureCache,
    pool: rayon::ThreadPool,
    hash: Sha256,
    report: &'a dyn Report,
}

impl<'a> Cutting<'a> {
    fn new(
        tokenizer: &'a Tokenizer,
        settings: FeatureSettings,
        cache: FeatureCache,
        report: &'a dyn Report,
    ) -> Result<Self, TrainError> {
        // While one rank cuts, the others of its host wait for it: all processors are its own.
        let pool = rayon::ThreadPoolBuilder::new()
            .build()
            .map_err(|error| TrainError::Internal(format!("threads to cut features with: {error}")))?;
        Ok(Self { tokenizer, settings, cache, pool, hash: Sha256::new(), report })
    }

    fn features(&mut self, name: &str, dataset: &Dataset, purpose: Purpose) -> Result<Features, TrainError> {
        let Self { tokenizer, settings, cache, .. } = self;
        let Opened { features, origin } =
            self.pool.install(|| Features::open_or_build(dataset, tokenizer, settings, purpose, cache))?;
        let counts = features.counts();
        self.report.note(format!(
            "{name}: {} questions, {} kept, {} mismatched, {} unreliable, {} windows, {} without an answer; {origin}",
            counts.questions,
            counts.kept,
            counts.mismatched,
            counts.unreliable,
            counts.chunks,
            counts.impossible_chunks
        ));
        self.hash.update(features.digest());
        Ok(features)
    }

    fn trained_on(&mut self, spec: &JobSpec, name: &str, dataset: &Dataset) -> Result<TrainSet, TrainError> {
        let features = self.features(name, dataset, Purpose::Train)?;
        let sampler = Sampler::new(
            &features.lengths(),
            batch_size(spec),
            spec.micro_batches_per_step(),
            spec.train.shuffle_seed,
        )?;
        Ok(TrainSet { features, sampler })
    }

    fn evaluated(&mut self, name: &str, dataset: Dataset) -> Result<DevSet, TrainError> {
        let features = self.features(name, &dataset, Purpose::Evaluate)?;
        Ok(DevSet { dataset, features })
    }
}

/// Reads a question file and tells of its oddities.
fn read(path: &str, report: &dyn Report) -> Result<Dataset, TrainError> {
    let dataset = squad_data::squad::read(Path::new(path))?;
    for warning in dataset.warnings.iter().take(5) {
        report.note(format!("{path}: {warning}"));
    }
    if dataset.warnings.len() > 5 {
        report.note(format!("{path}: {} more warnings", dataset.warnings.len() - 5));
    }
    Ok(dataset)
}

/// The questions to train on, and those that are held out of training; each where this task needs them. An
/// evaluation holds out what the training did, as long as file, share and shuffle seed are the same.
fn training_questions(
    spec: &JobSpec,
    task: &Task,
    report: &dyn Report,
) -> Result<(Option<Dataset>, Option<Dataset>), TrainError> {
    let trains = matches!(task, Task::Train { .. });
    let share = spec.eval.threshold_from.held_out_share();
    let Some(path) = spec.data.train.as_ref().filter(|_| trains || share.is_some()) else {
        return Ok((None, None));
    };
    let dataset = read(path, report)?;
    let Some(share) = share else { return Ok((Some(dataset), None)) };
    let Split { rest, held_out } = hold_out(dataset, share, spec.train.shuffle_seed)?;
    Ok((trains.then_some(rest), spec.data.dev.is_some().then_some(held_out)))
}

/// The weights that an evaluation goes through, oldest first, and the same in a form that ranks can compare. Damaged
/// checkpoints are passed over.
fn checkpoints_of(
    spec: &JobSpec,
    task: &Task,
    report: &dyn Report,
) -> Result<(Vec<PathBuf>, String), TrainError> {
    let Task::Evaluate { checkpoint } = task else { return Ok(Default::default()) };
    let output = PathBuf::from(&spec.output_dir);
    let (found, passed_over) = match checkpoint {
        Checkpoint::Path(path) => return Ok((vec![output.join(path)], String::new())),
        Checkpoint::All => find::whole(&output)?,
        Checkpoint::Latest => {
            find::newest(&output, |_| Ok(())).map(|(one, rest)| (one.into_iter().collect(), rest))?
        }
    };
    for one in passed_over {
        report.note(one.to_string());
    }
    if found.is_empty() {
        return Err(TrainError::NoCheckpoint(checkpoint::folder_of(&output)));
    }
    let names = found.iter().map(|one| format!("{} {}", one.manifest.step, one.identity));
    let names = names.collect::<Vec<_>>().join(", ");
    Ok((found.into_iter().map(|verified| verified.folder).collect(), names))
}

/// Loads the weights of a folder.
pub(crate) fn load(
    device: Device,
    spec: &JobSpec,
    task: &Task,
    folder: &Path,
    report: &dyn Report,
) -> Result<Network, TrainError> {
    let (mut network, loaded) = load_network(folder, head_in(spec, folder)?, spec.train.seed, device)?;
    network.compute_in(precision(spec));
    if device == Device::Cpu
        && let Some(sentence) = slow_format(precision(spec))
    {
        report.note(sentence);
    }
    if !loaded.head_loaded() && matches!(task, Task::Evaluate { .. }) {
        let has = save::head_of(network.config_json())
            .map_or("no question-answering head".into(), |h| format!("{h:?}"));
        return Err(TrainError::Unfit(format!(
            "{} has {has}, the spec asks for head: {:?}; evaluate a fine-tuned model with the head it was trained with",
            folder.display(),
            spec.head
        )));
    }
    loaded.warnings.iter().for_each(|warning| report.note(warning.clone()));
    report.note(format!(
        "{}: {} parameters in {} stages; head {}; {} tensors of the file unused",
        folder.display(),
        network.parameters(),
        network.stages().len(),
        if loaded.head_loaded() { "loaded" } else { "new" },
        loaded.unexpected.len()
    ));
    Ok(network)
}

/// Checks between spec, network and tokenizer.
fn fits(spec: &JobSpec, config: &EncoderConfig, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    let widest = spec.data.max_seq_length.next_multiple_of(spec.data.pad_to_multiple.max(1));
    if i64::from(widest) > config.max_tokens() {
        return Err(TrainError::Unfit(format!(
            "data.max_seq_length {}, padded to a multiple of data.pad_to_multiple {}, makes {widest} positions, \
             but the model knows only {}; lower one of them",
            spec.data.max_seq_length,
            spec.data.pad_to_multiple,
            config.max_tokens()
        )));
    }
    if tokenizer.vocabulary() as i64 > config.vocab_size {
        return Err(TrainError::Unfit(format!(
            "the tokenizer has {} entries, the model's embeddings only {}: the files do not belong together",
            tokenizer.vocabulary(),
            config.vocab_size
        )));
    }
    fits_layers(spec, config)
}

/// Checks between what a spec says of layers and those that there are.
pub(crate) fn fits_layers(spec: &JobSpec, config: &EncoderConfig) -> Result<(), TrainError> {
    let by_layer = spec.train.freeze_layers > 0 || spec.train.layerwise_decay.is_some();
    if by_layer && config.layer_stages() != config.num_hidden_layers {
        return Err(TrainError::Unfit(
            "train.freeze_layers and train.layerwise_decay treat layers one by one, but ALBERT's layers share \
             their weights; leave both out"
                .into(),
        ));
    }
    if i64::from(spec.train.freeze_layers) > config.num_hidden_layers {
        return Err(TrainError::Unfit(format!(
            "train.freeze_layers is {}, but the model has {} layers",
            spec.train.freeze_layers, config.num_hidden_layers
        )));
    }
    Ok(())
}

/// How large the spec's micro-batches are.
pub(crate) fn batch_size(spec: &JobSpec) -> BatchSize {
    match spec.data.tokens_per_batch {
        Some(tokens) => BatchSize::Tokens(TokenBudget {
            tokens: tokens as usize,
            pad_to_multiple: spec.data.pad_to_multiple as usize,
        }),
        None if spec.data.group_by_length => BatchSize::Examples(spec.train.batch_size as usize),
        None => BatchSize::Ungrouped(spec.train.batch_size as usize),
    }
}

fn settings(spec: &JobSpec, config_json: &Map<String, Value>, tokenizer: &Tokenizer) -> FeatureSettings {
    FeatureSettings {
        max_seq_length: spec.data.max_seq_length as usize,
        doc_stride: spec.data.doc_stride as usize,
        max_query_length: spec.data.max_query_length as usize,
        window: match spec.data.window {
            squad_proto::spec::Window::Step => squad_data::Window::Step,
            squad_proto::spec::Window::Overlap => squad_data::Window::Overlap,
        },
        layout: match spec.data.separators {
            // What the weights were trained with comes before what is usual in the family.
            Separators::Auto if save::single_separator(config_json) => PairLayout::Single,
            Separators::Auto => tokenizer.layout(),
            Separators::Single => PairLayout::Single,
        },
    }
}
