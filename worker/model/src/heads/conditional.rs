//! The conditional head: start, end given start, answerability.
//!
//! After GluonNLP's `ModelForQAConditionalV1`: p(start) · p(end | start) · p(answerable). In training the
//! gold start is given. Only allowed positions (the first token and the context) take part.

use tch::{Kind, Tensor};

use super::{Loss, Scores, masked_log_softmax, pick};
use crate::config::EncoderConfig;
use crate::dropout::Noise;
use crate::init::Init;
use crate::inputs::{Inputs, Targets};
use crate::stage::{Declaration, Stage};

/// Of the layer norm inside the end scores.
const LAYER_NORM_EPS: f64 = 1e-12;

const START_WEIGHT: usize = 0;
const START_BIAS: usize = 1;
const END_IN_WEIGHT: usize = 2;
const END_IN_BIAS: usize = 3;
const END_NORM_WEIGHT: usize = 4;
const END_NORM_BIAS: usize = 5;
const END_OUT_WEIGHT: usize = 6;
const END_OUT_BIAS: usize = 7;
const ANSWERABLE_IN_WEIGHT: usize = 8;
const ANSWERABLE_IN_BIAS: usize = 9;
const ANSWERABLE_OUT_WEIGHT: usize = 10;
const ANSWERABLE_OUT_BIAS: usize = 11;

/// The parameters; the numbers in the names are the replaced program's.
pub(crate) fn declare(config: &EncoderConfig, units: i64) -> Declaration {
    let c = config.hidden_size;
    let weights = Init::TruncatedNormal(0.02);
    let mut d = Declaration::new("head");
    d.linear("start_scores", 1, c, weights)
        .linear("end_scores.0", units, 2 * c, weights)
        .norm("end_scores.2", units)
        .linear("end_scores.3", 1, units, weights)
        .linear("answerable_scores.0", units, 2 * c, weights)
        .linear("answerable_scores.3", 2, units, weights);
    d
}

/// Logits of the start at every position, `[B, T]`.
fn start_logits(stage: &Stage, hidden: &Tensor) -> Tensor {
    hidden.linear(&stage[START_WEIGHT], Some(&stage[START_BIAS])).squeeze_dim(2)
}

/// Log-probabilities of the end at every position, for each given start: `[B, N, T]` from `[B, N]`.
fn end_log_probabilities(stage: &Stage, hidden: &Tensor, starts: &Tensor, allowed: &Tensor) -> Tensor {
    let c = hidden.size()[2];
    let at_starts = hidden.gather(1, &starts.unsqueeze(2).expand([-1, -1, c], false), false);
    // Linear([h_i ; h_t]) is the sum of two projections: no [B, N, T, 2C] tensor is ever built.
    let weight = &stage[END_IN_WEIGHT];
    let from_start = at_starts.linear(&weight.narrow(1, 0, c), None::<&Tensor>);
    let from_token = hidden.linear(&weight.narrow(1, c, c), Some(&stage[END_IN_BIAS]));
    let inner = (from_start.unsqueeze(2) + from_token.unsqueeze(1)).tanh();
    let units = inner.size()[3];
    let logits = inner
        .layer_norm([units], Some(&stage[END_NORM_WEIGHT]), Some(&stage[END_NORM_BIAS]), LAYER_NORM_EPS, true)
        .linear(&stage[END_OUT_WEIGHT], Some(&stage[END_OUT_BIAS]))
        .squeeze_dim(3);
    masked_log_softmax(&logits, &allowed.unsqueeze(1))
}

/// Log-probabilities that there is an answer and that there is none, `[B, 2]`.
fn answerability(
    stage: &Stage,
    hidden: &Tensor,
    start_log_probabilities: &Tensor,
    noise: Option<(&Noise, f64)>,
) -> Tensor {
    let weights = start_log_probabilities.exp().unsqueeze(1);
    let aggregate = weights.matmul(hidden).squeeze_dim(1);
    let inner = Tensor::cat(&[aggregate, hidden.select(1, 0)], 1)
        .linear(&stage[ANSWERABLE_IN_WEIGHT], Some(&stage[ANSWERABLE_IN_BIAS]))
        .tanh();
    let inner = match noise {
        Some((noise, rate)) => noise.apply(&inner, rate, None),
        None => inner,
    };
    inner
        .linear(&stage[ANSWERABLE_OUT_WEIGHT], Some(&stage[ANSWERABLE_OUT_BIAS]))
        .log_softmax(-1, Kind::Float)
}

/// Half the sum of the start's, the end's and answerability's negative log-likelihood, summed over examples.
pub(crate) fn loss(
    stage: &Stage,
    hidden: &Tensor,
    inputs: &Inputs,
    targets: &Targets,
    noise: Option<(&Noise, f64)>,
) -> Loss {
    let start = masked_log_softmax(&start_logits(stage, hidden), &inputs.allowed);
    let end =
        end_log_probabilities(stage, hidden, &targets.starts.unsqueeze(1), &inputs.allowed).squeeze_dim(1);
    let span = (pick(&start, &targets.starts) + pick(&end, &targets.ends)).sum(Kind::Float) * -0.5;
    let answerable = answerability(stage, hidden, &start, noise);
    let answerable = pick(&answerable, &targets.impossible).sum(Kind::Float) * -0.5;
    Loss { span: span.detach(), answerability: Some(answerable.detach()), total: span + answerable }
}

/// The best `top` starts and, for each, the best ends.
pub(crate) fn scores(stage: &Stage, hidden: &Tensor, inputs: &Inputs, top: (i64, i64)) -> Scores {
    let width = inputs.width();
    let all_starts = masked_log_softmax(&start_logits(stage, hidden), &inputs.allowed);
    let (start, start_index) = all_starts.topk(top.0.min(width), -1, true, true);
    let all_ends = end_log_probabilities(stage, hidden, &start_index, &inputs.allowed);
    let (end, end_index) = all_ends.topk(top.1.min(width), -1, true, true);
    let no_answer = answerability(stage, hidden, &all_starts, None).select(1, 1);
    Scores::Conditional { start, start_index, end, end_index, no_answer }
}

/// Log-probabilities of start, end given the gold start, and answerability: for comparisons with the
/// replaced program's own values.
pub fn log_probabilities(stage: &Stage, hidden: &Tensor, inputs: &Inputs, starts: &Tensor) -> [Tensor; 3] {
    let start = masked_log_softmax(&start_logits(stage, hidden), &inputs.allowed);
    let end = end_log_probabilities(stage, hidden, &starts.unsqueeze(1), &inputs.allowed).squeeze_dim(1);
    let answerable = answerability(stage, hidden, &start, None);
    [start, end, answerable]
}
