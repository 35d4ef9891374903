//! What `squadctl bench step` measures.

use serde::{Deserialize, Serialize};

/// How fast steps of training are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepBench {
    /// The model's name or folder.
    pub model: String,
    /// Its parameters, head included.
    pub parameters: u64,
    /// What computed: `cpu`, `cuda:0`.
    pub device: String,
    /// Number format of the layers.
    pub dtype: String,
    /// Windows of a step.
    pub batch: u64,
    /// Longest window in tokens.
    pub seq: u64,
    /// File whose windows' lengths were taken; absent where all windows have `seq` tokens.
    pub lengths: Option<String>,
    /// Whether batches were made beside the steps.
    pub prefetch: bool,
    /// Threads that computed.
    pub threads: u64,
    /// Steps that were timed.
    pub steps: u64,
    /// How long they took together.
    pub seconds: f64,
    /// The median of them.
    pub step_median_s: f64,
    /// Windows a second.
    pub examples_per_second: f64,
    /// Tokens a second, padding included.
    pub tokens_per_second: f64,
    /// Tokens a second that are no padding.
    pub real_tokens_per_second: f64,
    /// Share of the tokens that is padding.
    pub padding: f64,
    /// Floating-point operations a second: matrix products of the forward and the backward pass over the tokens that layers
    /// compute, of which padding is one on a GPU and none on a CPU, with keys for their mean length. What `recompute`
    /// computes again does not count.
    pub flops_per_second: f64,
    /// The best that products of large square matrices reached in this process, in the same number format.
    pub matrix_flops_per_second: f64,
    /// `flops_per_second` as a share of it.
    pub share_of_matrix_rate: f64,
    /// The largest resident set of the process.
    pub peak_rss_bytes: u64,
    /// Where the time of a step goes.
    pub phases: Phases,
}

/// Seconds of a mean step by what they are spent on, as the thread that computes sees it. On a GPU that thread only tells
/// it what to do: `wait` is then most of the time, whatever the GPU does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Waiting for batches, and making tensors of them.
    pub collate: f64,
    /// Forward pass.
    pub forward: f64,
    /// Backward pass; with `recompute` what is computed again is part of it.
    pub backward: f64,
    /// Waiting for gradients to be summed.
    pub wait: f64,
    /// Norms of gradients, and the update of the weights.
    pub optimizer: f64,
    /// The rest.
    pub other: f64,
}

impl Phases {
    /// Names and seconds, in the order of a step.
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("collate", self.collate),
            ("forward", self.forward),
            ("backward", self.backward),
            ("wait", self.wait),
            ("optimizer", self.optimizer),
            ("other", self.other),
        ]
    }
}
