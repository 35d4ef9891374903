//! `squad-worker bench`: how fast steps of training are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use squad_data::{
    BatchSize, FeatureCache, FeatureSettings, Features, Purpose, Sampler, Tokenizer, Window, squad,
};
use squad_model::stage_sizes;
use squad_proto::step_bench::{Phases, StepBench};
use squad_proto::{Deadlines, JobSpec};
use squad_train::measure::{Limits, Measured, matrix_rate, measure, random_network};
use squad_train::output::peak_rss_bytes;
use squad_train::plan::Shape;
use squad_train::plan::flops::Flops;
use squad_train::prepare::{TrainSet, head_kind, precision};
use tch::Device;

use crate::{device, join, shape};

/// Steps at the beginning that do not count.
const WARM_UP: usize = 2;
/// Steps that count, at least.
const LEAST: usize = 3;
/// Steps at most.
const MOST: u64 = 100_000;
/// Batches of an epoch where all windows are as long.
const BATCHES: usize = 64;

/// What to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// A model's folder, or a name of the zoo. Its weights are not needed.
    #[arg(long)]
    model: String,
    /// What computes.
    #[arg(long, value_enum, default_value_t = Where::Auto)]
    device: Where,
    /// Number format of the layers.
    #[arg(long, value_enum, default_value_t = Format::Float32)]
    dtype: Format,
    /// Windows of a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Longest window in tokens.
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u32).range(8..=8192))]
    seq: u32,
    /// Take the lengths of the windows of this question file.
    #[arg(long)]
    lengths: Option<PathBuf>,
    /// Folder of the tokenizer that cuts them, where the model's folder has none.
    #[arg(long, requires = "lengths")]
    tokenizer: Option<PathBuf>,
    /// The head.
    #[arg(long, value_enum, default_value_t = HeadArg::Span)]
    head: HeadArg,
    /// All dropout rates.
    #[arg(long)]
    dropout: Option<f64>,
    /// Run each layer again in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// Make batches between the steps.
    #[arg(long)]
    no_prefetch: bool,
    /// Threads.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// About how long to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    Auto,
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Float32,
    Float16,
    Bfloat16,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeadArg {
    Span,
    Conditional,
}

/// Prints the figures as one line of JSON.
///
/// # Errors
/// When the model or the lengths cannot be used, or a step fails.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let spec = args.spec()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, |threads| threads as usize);
    join::set_threads(threads);
    // Before libtorch is asked for anything: it looks for its CUDA half once.
    let (device, note) = device::choose(&spec.resources, 0)?;
    note.into_iter().for_each(|note| tracing::info!("{note}"));
    let model = shape::shape(&args.model)?;
    let widest = args.seq.next_multiple_of(spec.data.pad_to_multiple);
    anyhow::ensure!(
        i64::from(widest) <= model.config.max_tokens(),
        "--seq {}: the model knows only {} positions",
        args.seq,
        model.config.max_tokens()
    );
    let set = args.windows(&model, &spec)?;
    let (head, format) = (head_kind(&spec), precision(&spec));
    let flops = Flops::of(&model.config, &stage_sizes(&model.config, head), 0);
    let mut network = random_network((model.config, model.json), head, format, device);
    let limits =
        Limits { warm_up: WARM_UP, least: LEAST, seconds: args.seconds, prefetch: !args.no_prefetch };
    let steps = measure(&spec, &mut network, (&set, 0), (1..=MOST).collect(), limits)?;
    // Before the large matrices.
    let peak_rss_bytes = peak_rss_bytes();
    let parameters = network.parameters() as u64;
    drop(network);
    let figures = Figures::of(&steps, &flops);
    let matrix = matrix_rate(format, device);
    let report = StepBench {
        model: args.model.clone(),
        parameters,
        device: name(device),
        dtype: args.dtype.name(),
        batch: args.batch.into(),
        seq: args.seq.into(),
        lengths: args.lengths.as_ref().map(|file| file.display().to_string()),
        prefetch: !args.no_prefetch,
        threads: threads as u64,
        steps: steps.len() as u64,
        seconds: figures.seconds,
        step_median_s: figures.median,
        examples_per_second: figures.examples / figures.seconds,
        tokens_per_second: figures.padded / figures.seconds,
        real_tokens_per_second: figures.tokens / figures.seconds,
        padding: 1.0 - figures.tokens / figures.padded,
        flops_per_second: figures.flops / figures.seconds,
        matrix_flops_per_second: matrix,
        share_of_matrix_rate: figures.flops / figures.seconds / matrix,
        peak_rss_bytes,
        phases: figures.phases,
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(ExitCode::SUCCESS)
}

fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

impl Format {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl BenchArgs {
    /// A job whose steps are those that are measured.
    fn spec(&self) -> anyhow::Result<JobSpec> {
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let spec = json!({
            "name": "bench-step", "model": self.model, "output_dir": "unused",
            "head": word(self.head.to_possible_value()),
            "data": {"train": "made-up", "max_seq_length": self.seq, "doc_stride": self.stride(), "window": "overlap"},
            "train": {
                "batch_size": self.batch, "dtype": self.dtype.name(), "dropout": self.dropout,
                "recompute": self.recompute, "steps": MOST,
            },
            "resources": {"device": word(self.device.to_possible_value())},
        });
        Ok(squad_proto::spec::validate(&spec, "the options")?.into_inner())
    }

    /// What two windows share: a third, as is usual.
    fn stride(&self) -> u32 {
        self.seq / 3
    }

    /// Windows to take steps over, whose tokens mean nothing.
    fn windows(&self, model: &Shape, spec: &JobSpec) -> anyhow::Result<TrainSet> {
        let (batch, longest) = (self.batch as usize, self.seq as usize);
        let lengths = match &self.lengths {
            Some(file) => self.lengths_of(file, model)?,
            None => vec![longest; batch * BATCHES],
        };
        let features = Features::made_up(&lengths, model.config.vocab_size as usize, 1)?;
        let sampler = Sampler::new(&lengths, BatchSize::Examples(batch), 1, spec.train.shuffle_seed)?;
        Ok(TrainSet { features, sampler })
    }

    fn lengths_of(&self, file: &Path, model: &Shape) -> anyhow::Result<Vec<usize>> {
        let folder = self.tokenizer.as_ref().or(model.folder.as_ref()).with_context(|| {
            format!(
                "{} has no tokenizer here to cut --lengths with; name one with --tokenizer FOLDER",
                self.model
            )
        })?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        let dataset = squad::read(file)?;
        let settings = FeatureSettings {
            max_seq_length: self.seq as usize,
            doc_stride: self.stride() as usize,
            max_query_length: 64,
            window: Window::Overlap,
            layout: tokenizer.layout(),
        };
        let cache = FeatureCache::from_env(Deadlines::default().features);
        let opened = Features::open_or_build(&dataset, &tokenizer, &settings, Purpose::Train, &cache)?;
        Ok(opened.features.lengths())
    }
}

/// Sums over steps.
struct Figures {
    seconds: f64,
    median: f64,
    examples: f64,
    tokens: f64,
    padded: f64,
    flops: f64,
    phases: Phases,
}

impl Figures {
    fn of(steps: &[Measured], flops: &Flops) -> Self {
        let sum = |of: fn(&Measured) -> f64| steps.iter().map(of).sum::<f64>();
        let mean = |of: fn(&Measured) -> f64| sum(of) / steps.len().max(1) as f64;
        let mut times: Vec<f64> = steps.iter().map(|step| step.seconds).collect();
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median = match times.as_slice() {
            [] => 0.0,
            all if all.len() % 2 == 1 => all[middle],
            all => f64::midpoint(all[middle - 1], all[middle]),
        };
        // A step is one micro-batch; of windows of several lengths their mean is taken.
        let operations = |step: &Measured| {
            flops.training(step.examples, step.computed_tokens.checked_div(step.examples).unwrap_or(0))
        };
        let mut phases = Phases {
            collate: mean(|step| step.spent.collate),
            forward: mean(|step| step.spent.forward),
            backward: mean(|step| step.spent.backward),
            wait: mean(|step| step.spent.wait),
            optimizer: mean(|step| step.spent.optimizer),
            other: 0.0,
        };
        let known: f64 = phases.named().iter().map(|(_, seconds)| seconds).sum();
        phases.other = (mean(|step| step.seconds) - known).max(0.0);
        Self {
            seconds: sum(|step| step.seconds),
            median,
            examples: sum(|step| step.examples as f64),
            tokens: sum(|step| step.tokens as f64),
            padded: sum(|step| step.padded_tokens as f64),
            flops: steps.iter().map(operations).sum(),
            phases,
        }
    }
}
