//! Forward and backward of one micro-batch, stage by stage.
//!
//! The graph is cut at stage boundaries. The backward pass goes from the head down: for a stage with output
//! `h` and gradient `g` at its boundary, the scalar `(h · g).sum()` is differentiated with respect to the
//! stage's parameters and its input. So each stage's gradient is known, and handed on, while the stages
//! below are still to be differentiated; the values are those of one backward pass over the whole graph.

use squad_model::dropout::mix;
use squad_model::network::Dropout;
use squad_model::{Inputs, LossForm, Network, Noise, Targets};
use tch::{Kind, Tensor};

use crate::error::TrainError;
use crate::trace::{Activity, Trace};

/// One micro-batch as tensors.
#[derive(Debug)]
pub struct MicroBatch {
    /// What the network reads.
    pub inputs: Inputs,
    /// What it should answer.
    pub targets: Targets,
}

/// How the network is run in training.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Dropout rates.
    pub dropout: Dropout,
    /// Seed of this micro-batch's dropout: a function of job, step and micro-batch, never of the rank.
    pub seed: u64,
    /// Stages below this one are frozen.
    pub first_trainable: usize,
    /// The loss is divided by this: the examples of the whole global step.
    pub divisor: f64,
    /// Treatment of padding in the span head's loss.
    pub form: LossForm,
}

/// Loss sums of a micro-batch, not divided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// The loss.
    pub total: f64,
    /// Its span part.
    pub span: f64,
    /// Its answerability part.
    pub answerability: f64,
}

/// Computes loss and gradients of `batch`. `on_stage` is called with each trainable stage's number, its
/// leaves' gradients and the loss, from the head down, as soon as the gradients are known.
///
/// # Errors
/// Whatever `on_stage` answers ends the walk.
pub fn walk(
    network: &Network,
    batch: &MicroBatch,
    recipe: &Recipe,
    trace: &Trace<'_>,
    mut on_stage: impl FnMut(usize, Vec<Tensor>, &LossSums) -> Result<(), TrainError>,
) -> Result<LossSums, TrainError> {
    let head = network.stages().len() - 1;
    let noises: Vec<Noise> = (0..=head).map(|stage| Noise::new(mix(&[recipe.seed, stage as u64]))).collect();
    let noise = |stage: usize| (recipe.dropout != Dropout::NONE).then(|| (&noises[stage], recipe.dropout));

    // Forward: boundaries[k] is the input of stage k, a leaf of its own graph.
    let mut boundaries: Vec<Tensor> = vec![Tensor::new()];
    let mut outputs: Vec<Tensor> = Vec::with_capacity(head);
    for stage in 0..head {
        let _forward = trace.span(Activity::Forward(stage));
        let run = || network.forward(stage, &boundaries[stage], &batch.inputs, noise(stage));
        let frozen = stage < recipe.first_trainable;
        let output = if frozen { tch::no_grad(run) } else { run() };
        let boundary = output.detach();
        // The first trainable stage needs no gradient at its input.
        boundaries.push(if frozen { boundary } else { boundary.set_requires_grad(true) });
        outputs.push(output);
    }
    let forward = trace.span(Activity::Forward(head));
    let loss = network.loss(&boundaries[head], &batch.inputs, &batch.targets, recipe.form, noise(head));
    let sums = LossSums {
        total: loss.total.double_value(&[]),
        span: loss.span.double_value(&[]),
        answerability: loss.answerability.as_ref().map_or(0.0, |part| part.double_value(&[])),
    };
    drop(forward);

    // Backward: from the head's loss down to the first trainable stage.
    let mut scalar = loss.total / recipe.divisor;
    for stage in (recipe.first_trainable..=head).rev() {
        let _backward = trace.span(Activity::Backward(stage));
        let mut wanted: Vec<&Tensor> = network.stages()[stage].leaves().iter().collect();
        let goes_on = stage > recipe.first_trainable;
        if goes_on {
            wanted.push(&boundaries[stage]);
        }
        let mut gradients = Tensor::f_run_backward(&[&scalar], &wanted, false, false)
            .map_err(squad_model::ModelError::from)?;
        if goes_on && let Some(at_boundary) = gradients.pop() {
            let output =
                outputs.pop().ok_or_else(|| TrainError::Internal("a stage without output".into()))?;
            scalar = (output * at_boundary).sum(Kind::Float);
        }
        on_stage(stage, gradients, &sums)?;
    }
    Ok(sums)
}
