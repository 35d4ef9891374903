//! The commands that measure.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::sizes::Sizes;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure how fast the ranks of this machine sum their gradients
    ///
    /// Starts the ranks as processes of their own, which reduce buffers of each size after filling them anew and meeting;
    /// the slowest rank's time counts, and the median of all repetitions. Sums are verified. algbw is the buffer's
    /// bytes over the time; busbw is that times 2 (np - 1) / np, what each rank must at least send, as in nccl-tests. Over
    /// shared memory the bound is what the sums in memory alone would allow, measured beside.
    #[command(
        name = "allreduce",
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl bench allreduce
  squadctl bench allreduce --np 4 --transport tcp --sizes 64KiB..16MiB
  squadctl bench allreduce --np 4 --hosts 2 --compression bf16
  squadctl bench allreduce --np 4 --transport nccl
  squadctl bench allreduce --link-gbps 1 --plot scaling.svg
  squadctl bench allreduce --memory caller --plot allreduce.svg --output json"
    )]
    AllReduce(AllReduceArgs),
    /// Measure how fast steps of training are on this machine
    ///
    /// Takes real steps (forward, backward, update) of one worker, on random weights: a model of the zoo needs no files.
    /// FLOP/s count the matrix products of the forward and the backward pass over the tokens that layers compute, padding
    /// on a GPU included; their share is of what products of large square matrices reach in the same process. Phases are
    /// as the computing thread sees them: on a GPU it waits most of the time, whatever the GPU does. With --lengths windows
    /// are as long as those of a question file, and go into batches as in training; otherwise all have --seq tokens.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl bench step --model models/all-MiniLM-L6-v2 --batch 8 --seq 384
  squadctl bench step --model google_en_uncased_bert_base --dtype bfloat16 --seconds 60
  squadctl bench step --model models/all-MiniLM-L6-v2 --lengths squad/train-v1.1.json --plot step.svg
  squadctl bench step --model google_en_uncased_bert_large --device cuda --dtype float16 --output json"
    )]
    Step(StepArgs),
    /// Be one of the ranks. Reads what to do from standard input
    #[command(
        hide = true,
        after_help = "Examples:\n  squadctl bench rank is started by squadctl bench allreduce"
    )]
    Rank,
}

/// How all-reduce is measured.
#[derive(Debug, Args)]
pub(crate) struct AllReduceArgs {
    /// Number of ranks [default: 2; with --link-gbps the largest number, 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) np: Option<u16>,
    /// What carries the bytes.
    #[arg(long, value_enum, default_value_t = Carrier::Auto)]
    pub(crate) transport: Carrier,
    /// How values travel over TCP.
    #[arg(long, value_enum, default_value_t = Rounding::None)]
    pub(crate) compression: Rounding,
    /// How many hosts the ranks say they are on, in blocks of equal size: over loopback, but as between machines.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) hosts: u16,
    /// Whose memory is reduced.
    #[arg(long, value_enum, default_value_t = Owner::Collective)]
    pub(crate) memory: Owner,
    /// Sizes: one, several with commas, or a range in steps of four [default: 4KiB..256MiB; with --link-gbps 16MiB].
    #[arg(long, value_name = "SIZES")]
    pub(crate) sizes: Option<Sizes>,
    /// About how long to measure each size.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Give each rank a link of G gigabits a second, each way, and measure how ring and server scale with 2 to N ranks.
    #[arg(long, value_name = "G", conflicts_with = "hosts")]
    pub(crate) link_gbps: Option<f64>,
    /// A picture to draw, as SVG: bandwidth over size; with --link-gbps time over ranks.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// How steps are measured.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// A model's folder, or a name of squadctl models list.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// What computes.
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Number format of the layers.
    #[arg(long, value_enum, default_value_t = NumberFormat::Float32)]
    pub(crate) dtype: NumberFormat,
    /// Windows of a step.
    #[arg(long, value_name = "B", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) batch: u32,
    /// Longest window in tokens.
    #[arg(long, value_name = "S", default_value_t = 384, value_parser = clap::value_parser!(u32).range(8..=8192))]
    pub(crate) seq: u32,
    /// Take the lengths of the windows that this question file is cut into, at most --seq.
    #[arg(long, value_name = "FILE")]
    pub(crate) lengths: Option<PathBuf>,
    /// Folder of the tokenizer that cuts --lengths [default: the model's].
    #[arg(long, value_name = "DIR", requires = "lengths")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// The question-answering head.
    #[arg(long, value_enum, default_value_t = HeadKind::Span)]
    pub(crate) head: HeadKind,
    /// All dropout rates of the encoder [default: the model's own].
    #[arg(long, value_name = "RATE")]
    pub(crate) dropout: Option<f64>,
    /// Run each layer again in the backward pass, as train.recompute does.
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Make batches between the steps, not beside them, to see what that costs.
    #[arg(long)]
    pub(crate) no_prefetch: bool,
    /// Threads of the worker [default: one for each core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// About how long to measure, after warming up; three steps are taken at least.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// A picture of the phases of a step to draw, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// A GPU where there is one that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU.
    Cuda,
}

/// Number format of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumberFormat {
    /// 32-bit floats.
    Float32,
    /// IEEE 754 half precision, with loss scaling.
    Float16,
    /// bfloat16.
    Bfloat16,
}

/// The question-answering head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadKind {
    /// Hugging Face's.
    Span,
    /// The replaced program's.
    Conditional,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    /// Shared memory, as jobs on one machine use it, or TCP where it cannot be had.
    Auto,
    /// Shared memory.
    Shm,
    /// TCP over loopback.
    Tcp,
    /// Shared memory inside each of --hosts hosts, TCP over loopback between them.
    Hierarchical,
    /// TCP over loopback through rank 0, which sums for all.
    Server,
    /// NCCL between GPUs, of which rank N has the one of number N.
    Nccl,
}

/// How values travel over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rounding {
    /// As they are.
    None,
    /// In 16 bits, IEEE 754 half precision.
    Fp16,
    /// In 16 bits, bfloat16.
    Bf16,
}

/// Whose memory is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Owner {
    /// The collective's own, where gradients are.
    Collective,
    /// The caller's, as with MPI: copied in and out.
    Caller,
}
