//! What a job will need, as `squadctl plan` tells it. The formulas are squad-train's (`plan`), which knows networks.
//!
//! Bytes are whole numbers of bytes; times are seconds. "Worker" is one process; there are [`Plan::workers`] of them.

use serde::{Deserialize, Serialize};

/// Memory of a worker's program, libtorch and its threads, before it has a model.
pub const PROGRAM_BYTES: u64 = 256 << 20;

/// What a job will need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The job's model, as its spec has it.
    pub model: String,
    /// Worker processes that share the work.
    pub workers: u32,
    /// Parameters of the network.
    pub parameters: Parameters,
    /// The micro-batch that takes most memory.
    pub micro_batch: MicroBatchShape,
    /// Memory of one worker.
    pub memory: WorkerMemory,
    /// Gradients that are summed over the workers.
    pub exchange: Exchange,
    /// Steps, windows and tokens; absent where the questions or the tokenizer are not at hand.
    pub work: Option<Work>,
    /// How long it takes; absent without a probe.
    pub time: Option<Time>,
    /// What the figures leave out or had to assume.
    pub notes: Vec<String>,
}

/// Parameters of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// All of them.
    pub total: u64,
    /// Those that training changes.
    pub trainable: u64,
    /// Stage by stage, from the embeddings to the head.
    pub stages: Vec<StageParameters>,
}

/// Parameters of a stage: the embeddings, a layer (all of them where they share their weights), or the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageParameters {
    /// What the stage is.
    pub name: String,
    /// Its parameters.
    pub parameters: u64,
    /// Whether training changes them.
    pub trainable: bool,
}

/// The shape of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicroBatchShape {
    /// Windows.
    pub windows: u64,
    /// Tokens of each, padding included.
    pub tokens: u64,
    /// Whether the length is that of the longest window of the training file, rather than `data.max_seq_length`.
    pub from_data: bool,
}

/// Memory of a worker in training, by what it is for. On a GPU all but `program` and `checkpoint_copy` is its.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerMemory {
    /// Weights in 32 bits.
    pub weights: u64,
    /// The layers' weights rounded to 16 bits (`train.dtype`).
    pub shadow_weights: u64,
    /// Gradients in 32 bits.
    pub gradients: u64,
    /// Two moments in 32 bits.
    pub moments: u64,
    /// What the backward pass needs of the forward pass, as the spec has it.
    pub activations: u64,
    /// This and `working` together with `train.recompute: false`, ...
    pub without_recompute: u64,
    /// ... and with `train.recompute: true`, where one stage's activations are made again at a time.
    pub with_recompute: u64,
    /// Results in the middle of an operation, and gradients before they are moved to their place.
    pub working: u64,
    /// Other workers' gradients that the worker maps, too, where all share a machine's memory: part of its resident
    /// set, and there once on the machine.
    pub mapped: u64,
    /// Program, libraries and threads.
    pub program: u64,
    /// The sum: the resident set of a worker that keeps no checkpoints.
    pub worker: u64,
    /// A second copy of weights and moments on the first worker, while it writes a checkpoint.
    pub checkpoint_copy: u64,
    /// The resident set of the first worker.
    pub first_worker: u64,
}

/// Gradients that are summed over the workers in a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// All of them, as 32-bit floats, with the step's header.
    pub dense_bytes: u64,
    /// Rows of the word-embedding table that a step touches, on average; absent where they are not known.
    pub touched_rows: Option<f64>,
    /// What is summed, on average: of the word embeddings only the touched rows, unless the spec says otherwise. 0 with
    /// one worker.
    pub bytes: f64,
    /// The same rounded to 16 bits, as `comm.compression` has it travel between hosts and over TCP.
    pub compressed_bytes: Option<f64>,
    /// What each worker sends, at least, where workers have no memory in common: 2 (n-1) / n of it.
    pub sent_bytes: f64,
    /// What is summed in the whole run; absent where the number of steps is not known.
    pub run_bytes: Option<u64>,
}

/// Steps, windows and tokens of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Windows of an epoch.
    pub windows: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Windows of the run.
    pub examples: u64,
    /// Tokens of the run that are no padding.
    pub tokens: u64,
    /// Tokens of the run, padding included.
    pub padded_tokens: u64,
    /// Share of them that is padding.
    pub padding: f64,
    /// Floating-point operations of the run: matrix products of the forward pass and the backward pass over the tokens that layers
    /// compute, of which padding is one on a GPU and none on a CPU.
    pub flops: f64,
}

/// How long a run takes, from a few real steps of one worker with its share of this machine's cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds of each step that was taken for this, after warming up.
    pub probed: Vec<f64>,
    /// Threads that took them.
    pub threads: u64,
    /// A step, on average: those that were taken, scaled by tokens to the run's mean step.
    pub step_seconds: f64,
    /// All steps of the run; absent where their number is not known.
    pub run_seconds: Option<f64>,
    /// Windows a second, over all workers.
    pub examples_per_second: f64,
    /// Tokens a second that are no padding, over all workers.
    pub tokens_per_second: f64,
    /// The largest resident set of the process that took the steps, one of which was the largest of an epoch.
    pub peak_rss_bytes: u64,
}
