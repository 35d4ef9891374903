//! Forward and backward of one micro-batch, stage by stage.
//!
//! The graph is cut at stage boundaries. The backward pass goes from the head down: for a stage with output
//! `h` and gradient `g` at its boundary, the scalar `(h · g).sum()` is differentiated with respect to the
//! stage's parameters and its input. So each stage's gradient is known, and handed on, while the stages
//! below are still to be differentiated; the values are those of one backward pass over the whole graph.
//!
//! With [`Recipe::recompute`] only what lies at the boundaries is kept: a stage below the head is run again when its turn
//! comes (Chen et al., 2016). It computes the same bits, since dropout masks follow from a seed and a count.

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
    /// The row of the micro-batch that the batch begins with; other than 0 for a piece of one.
    pub first_row: usize,
    /// Stages below this one are frozen.
    pub first_trainable: usize,
    /// The loss is divided by this: the examples of the whole global step.
    pub divisor: f64,
    /// Treatment of padding in the span head's loss.
    pub form: LossForm,
    /// Runs each stage again in the backward pass instead of keeping its activations.
    pub recompute: bool,
}

/// Losses of a micro-batch as scalars on the network's device, without gradients. Reading one waits for the device.
#[derive(Debug)]
pub struct LossScalars {
    /// The loss, summed over examples.
    pub total: Tensor,
    /// Its span part.
    pub span: Tensor,
    /// Its answerability part, where the head has one.
    pub answerability: Option<Tensor>,
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

impl LossSums {
    /// Reads the scalars.
    fn read(scalars: &LossScalars) -> Self {
        let value = |scalar: &Tensor| scalar.double_value(&[]);
        Self {
            total: value(&scalars.total),
            span: value(&scalars.span),
            answerability: scalars.answerability.as_ref().map_or(0.0, value),
        }
    }
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
    let mut sums = None;
    walk_unread(network, batch, recipe, trace, |stage, gradients, loss| {
        let sums = sums.get_or_insert_with(|| LossSums::read(loss));
        on_stage(stage, gradients, sums)
    })?;
    sums.ok_or_else(|| TrainError::Internal("a network without a trainable stage".into()))
}

/// The same for a device that works behind the host: `on_stage` gets the loss as scalars on the device, and nothing here
/// waits for them.
///
/// # Errors
/// Whatever `on_stage` answers ends the walk.
pub fn walk_unread(
    network: &Network,
    batch: &MicroBatch,
    recipe: &Recipe,
    trace: &Trace<'_>,
    mut on_stage: impl FnMut(usize, Vec<Tensor>, &LossScalars) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let head = network.stages().len() - 1;
    // Masks are counted from the start of each run of a stage, so a second run has the first one's.
    let noise = |stage: usize| Noise::new(mix(&[recipe.seed, stage as u64])).from_row(recipe.first_row);
    let dropout = (recipe.dropout != Dropout::NONE).then_some(recipe.dropout);
    let run = |stage: usize, input: &Tensor| {
        let noise = noise(stage);
        network.forward(stage, input, &batch.inputs, dropout.map(|rates| (&noise, rates)))
    };

    // Forward: boundaries[k] is the input of stage k, a leaf of its own graph.
    let mut boundaries: Vec<Tensor> = vec![Tensor::new()];
    let mut outputs: Vec<Tensor> = Vec::with_capacity(head);
    for stage in 0..head {
        let _forward = trace.span(Activity::Forward(stage));
        let frozen = stage < recipe.first_trainable;
        let forward = || run(stage, &boundaries[stage]);
        let output = if frozen || recipe.recompute { tch::no_grad(forward) } else { forward() };
        let boundary = output.detach();
        // The first trainable stage needs no gradient at its input.
        boundaries.push(if frozen { boundary } else { boundary.set_requires_grad(true) });
        if !recipe.recompute {
            outputs.push(output);
        }
    }
    let forward = trace.span(Activity::Forward(head));
    let head_noise = noise(head);
    let head_noise = dropout.map(|rates| (&head_noise, rates));
    let loss = network.loss(&boundaries[head], &batch.inputs, &batch.targets, recipe.form, head_noise);
    let scalars =
        LossScalars { total: loss.total.detach(), span: loss.span, answerability: loss.answerability };
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
            // What was above is differentiated: its input is needed no more.
            boundaries.truncate(stage);
            let output = match outputs.pop() {
                Some(output) => output,
                None => run(stage - 1, &boundaries[stage - 1]),
            };
            scalar = (output * at_boundary).sum(Kind::Float);
        }
        on_stage(stage, gradients, &scalars)?;
    }
    Ok(())
}
