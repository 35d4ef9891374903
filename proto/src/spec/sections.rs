//! The sections of a job spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to train and evaluate on, and how text becomes windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// SQuAD version: "1.1" (every question has an answer) or "2.0".
    #[schemars(extend("enum" = ["1.1", "2.0"]))]
    pub version: String,
    /// Training file in SQuAD's JSON format.
    pub train: Option<String>,
    /// File to evaluate on.
    pub dev: Option<String>,
    /// Longest sequence in tokens, special tokens included.
    #[schemars(range(min = 8, max = 8192))]
    pub max_seq_length: u32,
    /// Distance between windows over a long context, in tokens; what it measures is set by `window`.
    #[schemars(range(min = 1))]
    pub doc_stride: u32,
    /// Whether `doc_stride` is the step between windows or their overlap.
    pub window: Window,
    /// Questions are cut to this many tokens.
    #[schemars(range(min = 1))]
    pub max_query_length: u32,
    /// What stands between question and context.
    pub separators: Separators,
    /// Batches are padded to a multiple of this many tokens.
    #[schemars(range(min = 1, max = 512))]
    pub pad_to_multiple: u32,
    /// Tokens in a micro-batch of training, padding included, in place of `train.batch_size`: a micro-batch
    /// then holds as many windows as have room, many short ones or few long ones. At least the padded
    /// `max_seq_length`; null for a fixed number of windows.
    #[schemars(range(min = 1))]
    pub tokens_per_batch: Option<u32>,
    /// Whether a step's windows have like lengths. Without, a step takes them as the epoch's permutation has them, as the replaced program
    /// did. Several workers then wait for the one with the most tokens, and GPUs compute more padding.
    pub group_by_length: bool,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            version: "2.0".into(),
            train: None,
            dev: None,
            max_seq_length: 512,
            doc_stride: 128,
            window: Window::Step,
            max_query_length: 64,
            separators: Separators::Auto,
            pad_to_multiple: 8,
            tokens_per_batch: None,
            group_by_length: true,
        }
    }
}

/// What `doc_stride` measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The distance between the starts of successive windows: the replaced program's.
    #[default]
    Step,
    /// The tokens that successive windows share: Hugging Face's.
    Overlap,
}

/// What stands between question and context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Separators {
    /// As Hugging Face does for the model: two separators for RoBERTa and XLM-R, one for all others.
    #[default]
    Auto,
    /// One separator for every model: the replaced program's.
    Single,
}

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Passes over the training set; fractions are allowed.
    #[schemars(range(min = 0.0))]
    pub epochs: f64,
    /// Optimizer steps; overrides `epochs`.
    #[schemars(range(min = 1))]
    pub steps: Option<u64>,
    /// Examples in a micro-batch of one worker; not used where `data.tokens_per_batch` is set.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Micro-batches of one worker in an optimizer step.
    #[schemars(range(min = 1, max = 65536))]
    pub accumulate: u32,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    #[schemars(range(min = 0.0))]
    pub learning_rate: f64,
    /// Share of the steps over which the learning rate rises.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: f64,
    /// Steps over which the learning rate rises; overrides `warmup_ratio`.
    pub warmup_steps: Option<u64>,
    /// Decoupled weight decay; biases and layer norms are exempt.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    #[schemars(inner(range(min = 0.0, max = 0.999_999_9)))]
    pub adam_betas: [f64; 2],
    /// Added to the root of the second moment.
    #[schemars(range(min = 0.0))]
    pub adam_epsilon: f64,
    /// Whether the moments are corrected for their start at zero.
    pub bias_correction: bool,
    /// The averaged gradient is scaled down to this norm; 0 means no clipping.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Factor on the learning rate for each layer below the top; null for none.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub layerwise_decay: Option<f64>,
    /// Layers at the bottom that stay as they are, embeddings included; 0 for none.
    pub freeze_layers: u32,
    /// Dropout of the encoder; null for the model's own.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub dropout: Option<f64>,
    /// Dropout of the answerability classifier (`head: conditional`).
    #[schemars(range(min = 0.0, max = 0.9))]
    pub classifier_dropout: f64,
    /// Number format of the encoder layers, in training and evaluation. Weights, optimizer, embeddings and loss are in
    /// 32 bits whatever it is.
    pub dtype: DataType,
    /// Run each layer again in the backward pass instead of keeping its activations: less memory, more time (a
    /// second forward pass), the same numbers.
    pub recompute: bool,
    /// Seed of the new head's weights and of dropout.
    pub seed: u64,
    /// Seed of the order of the examples.
    pub shuffle_seed: u64,
    /// Steps between checkpoints; null for one each epoch.
    #[schemars(range(min = 1))]
    pub checkpoint_every: Option<u64>,
    /// How many checkpoints are kept.
    #[schemars(range(min = 1))]
    pub keep_checkpoints: u32,
    /// Steps between lines of metrics.jsonl.
    #[schemars(range(min = 1))]
    pub log_every: u64,
    /// Folder whose weights training starts from (encoder and head), in place of the model's.
    pub init_from: Option<String>,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 3.0,
            steps: None,
            batch_size: 8,
            accumulate: 1,
            optimizer: Optimizer::Adamw,
            learning_rate: 2e-5,
            warmup_ratio: 0.1,
            warmup_steps: None,
            weight_decay: 0.01,
            adam_betas: [0.9, 0.999],
            adam_epsilon: 1e-6,
            bias_correction: false,
            max_grad_norm: 1.0,
            layerwise_decay: None,
            freeze_layers: 0,
            dropout: None,
            classifier_dropout: 0.1,
            dtype: DataType::Float32,
            recompute: false,
            seed: 100,
            shuffle_seed: 100,
            checkpoint_every: None,
            keep_checkpoints: 5,
            log_every: 50,
            init_from: None,
        }
    }
}

/// The optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    #[default]
    Adamw,
}

/// A number format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// 32-bit floating point.
    #[default]
    Float32,
    /// IEEE half precision, with dynamic loss scaling. Products are in 32 bits on processors that have none in it.
    Float16,
    /// bfloat16: less precise than half, in the range of 32-bit numbers. The fast one on processors with products in it; in 32 bits on others.
    Bfloat16,
}

/// How to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// Windows in a batch of one worker.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Answers kept for each question.
    #[schemars(range(min = 1, max = 1000))]
    pub n_best: u32,
    /// Longest answer in tokens.
    #[schemars(range(min = 1))]
    pub max_answer_length: u32,
    /// Start candidates of each window (`head: conditional`).
    #[schemars(range(min = 1, max = 1000))]
    pub start_top_n: u32,
    /// End candidates of each start (`head: conditional`).
    #[schemars(range(min = 1, max = 1000))]
    pub end_top_n: u32,
    /// Steps between evaluations during training. Not available yet: must be null.
    #[schemars(range(min = 1))]
    pub every: Option<u64>,
    /// What the no-answer threshold of the revised predictions is tuned on: `dev`, or the share of the
    /// training questions that is held out of training for it, such as 0.05.
    pub threshold_from: ThresholdSource,
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            batch_size: 16,
            n_best: 20,
            max_answer_length: 30,
            start_top_n: 5,
            end_top_n: 5,
            every: None,
            threshold_from: ThresholdSource::Dev,
        }
    }
}

/// What the no-answer threshold is tuned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdSource {
    /// The dev file itself, as the official script does: the figures at the threshold are then a little too good.
    #[default]
    Dev,
    /// This share of the training questions, more than 0 and less than 0.5. They are not trained on; all
    /// questions about one text stay together, and `train.shuffle_seed` decides which texts they are.
    #[serde(untagged)]
    Train(#[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 0.5))] f64),
}

impl ThresholdSource {
    /// The share of the training questions that is held out of training, if any.
    pub fn held_out_share(self) -> Option<f64> {
        match self {
            Self::Dev => None,
            Self::Train(share) => Some(share),
        }
    }
}

/// What to run on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Workers; with `train.batch_size` and `train.accumulate` they set the global batch. `run -np`
    /// changes how many processes share the work, not the work.
    #[schemars(range(min = 1, max = 4096))]
    pub workers: u32,
    /// Fewest workers that a job goes on with when slots are gone for good; null for all of `workers`. A slot is gone
    /// for good when its worker could not be started in two lives in a row, or died or fell silent in three, none of
    /// which got further than the first. The work stays the same: fewer processes share it.
    #[schemars(range(min = 1))]
    pub min_workers: Option<u32>,
    /// What computes.
    pub device: DeviceKind,
    /// GPUs of each machine to use, by number, one for each of its workers in this order; null for all.
    pub gpus: Option<Vec<u32>>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { workers: 1, min_workers: None, device: DeviceKind::Auto, gpus: None }
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// GPUs where there are any that can be used, else CPUs.
    #[default]
    Auto,
    /// CPUs.
    Cpu,
    /// GPUs.
    Cuda,
}

/// How workers exchange gradients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Comm {
    /// What carries the all-reduce.
    pub backend: Backend,
    /// Number format in which gradients travel between hosts, and over TCP on one.
    pub compression: Compression,
    /// How the gradient of the word embeddings travels. The weights come out the same to the last bit.
    pub embedding_gradients: EmbeddingGradients,
}

/// How the gradient of the word-embedding table travels between workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingGradients {
    /// As the rows of the words that a step has, unless those are all.
    #[default]
    Auto,
    /// As the whole table.
    Dense,
    /// As rows, whatever their number.
    Rows,
}

/// What carries the all-reduce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// NCCL on GPUs, the ring otherwise.
    #[default]
    Auto,
    /// Squadron's own ring.
    Ring,
    /// NCCL, between GPUs.
    Nccl,
    /// TCP through rank 0, which sums for all, as a parameter server does: slow, and here to compare the others with.
    Server,
}

/// Number format of gradients on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Rounded to 16-bit floating point, 11 significant bits; sums beyond 65,504 become infinite, and such a step is
    /// treated as one whose gradients overflow.
    Fp16,
    /// Rounded to bfloat16: 8 significant bits, and the range of 32-bit floats.
    Bf16,
}

/// What to do about failures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// How often the workers are started again, from the newest checkpoint, after one was lost; then the job fails.
    /// 0 for never. A failure that would come again, such as bad input, ends the job at once.
    #[schemars(range(max = 1000))]
    pub max_restarts: u32,
    /// Seconds that any party waits for another; every deadline derives from it.
    #[schemars(range(min = 1.0, max = 86400.0))]
    pub patience_s: f64,
}

impl Default for Fault {
    fn default() -> Self {
        Self { max_restarts: 3, patience_s: 60.0 }
    }
}
