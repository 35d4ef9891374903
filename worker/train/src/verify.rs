//! A network held against values that another program computed with the same weights.
//!
//! A reference folder holds `inputs.safetensors` (input_ids, attention_mask, token_type_ids, start_positions,
//! end_positions), `outputs.safetensors` (hidden_0 … hidden_L, start_logits, end_logits, loss) and
//! `grads.safetensors` (by Hugging Face parameter name), all of the span head with dropout off and the loss in
//! Hugging Face's form. Where a file of the same name with `_f64` is there, it is the yardstick.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use squad_model::load::{Tensors, read_integers, read_safetensors};
use squad_model::network::Dropout;
use squad_model::{HeadKind, Inputs, LossForm, ModelError, Network, Scores, Stage, Targets, load_network};
use tch::{Device, Kind, Tensor};

use crate::backward::{MicroBatch, Recipe, walk};
use crate::error::TrainError;

/// How far values may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Of hidden states, logits and the loss.
    pub values: f64,
    /// Of gradients.
    pub gradients: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { values: 1e-5, gradients: 1e-4 }
    }
}

/// A tensor whose largest value is this much below the largest of all is zero but for rounding. Key biases are
/// (a softmax cancels them), and in Hugging Face's form of the loss also the span head's and the last norm's bias.
const ZERO: f64 = 1e-6;

/// One tensor's comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Its name in the reference.
    pub name: String,
    /// Largest absolute difference, over the reference's largest magnitude unless `absolute`.
    pub difference: f64,
    /// True where the reference is zero but for rounding, so that nothing can be relative to it.
    pub absolute: bool,
    /// What would have been allowed.
    pub tolerance: f64,
}

impl Comparison {
    fn within(&self) -> bool {
        // False for NaN.
        self.difference <= self.tolerance
    }
}

/// What comparing found.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// `model_type` of the network.
    pub family: &'static str,
    /// Parameters of the network.
    pub parameters: usize,
    /// Whether every difference is within its tolerance.
    pub passed: bool,
    /// Every tensor, values first, then gradients.
    pub tensors: Vec<Comparison>,
}

/// Runs the model of `model` forward and backward on a reference's inputs and compares everything it holds.
///
/// # Errors
/// When a file is missing, damaged or does not belong to the model. Differences are no errors.
pub fn verify(model: &Path, reference: &Path, tolerance: Tolerance) -> Result<Verification, TrainError> {
    let (network, loaded) = load_network(model, HeadKind::Span, 0, Device::Cpu)?;
    if !loaded.head_loaded() {
        return Err(TrainError::Unfit(format!("{}: there is no span head to verify", model.display())));
    }
    let batch = batch(&reference.join("inputs.safetensors"))?;
    let mut tensors = Vec::new();
    let (ours, gradients) = compute(&network, &batch)?;
    for (file, ours, tolerance) in
        [("outputs", &ours, tolerance.values), ("grads", &gradients, tolerance.gradients)]
    {
        compare(reference, file, ours, tolerance, &mut tensors)?;
    }
    Ok(Verification {
        family: network.config().family.model_type(),
        parameters: network.parameters(),
        passed: tensors.iter().all(Comparison::within),
        tensors,
    })
}

/// The reference's inputs as a micro-batch.
fn batch(path: &Path) -> Result<MicroBatch, TrainError> {
    let all = read_integers(path)?;
    let get = |name: &str| match all.get(name) {
        Some((shape, values)) => Ok((shape.as_slice(), values.as_slice())),
        None => Err(unfit(path, &format!("lacks {name}"))),
    };
    let (shape, ids) = get("input_ids")?;
    let [rows, width] = *shape else { return Err(unfit(path, "input_ids is not a table")) };
    let mask = get("attention_mask")?.1;
    let types = get("token_type_ids")?.1;
    let starts = get("start_positions")?.1;
    let ends = get("end_positions")?.1;
    let cells = (rows * width) as usize;
    if width == 0
        || mask.len() != cells
        || types.len() != cells
        || starts.len() != rows as usize
        || ends.len() != rows as usize
    {
        return Err(unfit(path, "its tensors have different numbers of rows or columns"));
    }
    let lengths: Vec<i64> = mask.chunks(width as usize).map(|row| row.iter().sum()).collect();
    if starts.iter().chain(ends).any(|at| !(0..width).contains(at)) {
        return Err(unfit(path, "a start or end position is outside the sequence"));
    }
    Ok(MicroBatch {
        inputs: Inputs::new(&lengths, ids, types, &vec![true; cells], Device::Cpu),
        targets: Targets::new(starts, ends, &vec![0; rows as usize], Device::Cpu),
    })
}

fn unfit(path: &Path, what: &str) -> TrainError {
    TrainError::Unfit(format!("{}: {what}; is it a reference folder's file?", path.display()))
}

/// Values and gradients by the reference's names, the gradients without the architecture's prefix.
fn compute(network: &Network, batch: &MicroBatch) -> Result<(Named, Named), TrainError> {
    let mut outputs = Named::new();
    let states = tch::no_grad(|| network.hidden_states(&batch.inputs));
    for (depth, state) in states.iter().enumerate() {
        outputs.insert(format!("hidden_{depth}"), values(state)?);
    }
    if let Scores::Span { start, end } = network.scores(&batch.inputs, (1, 1)) {
        outputs.insert("start_logits".into(), values(&start)?);
        outputs.insert("end_logits".into(), values(&end)?);
    }
    let mut gradients = Named::new();
    let rows = batch.inputs.rows() as f64;
    let recipe = Recipe {
        dropout: Dropout::NONE,
        seed: 0,
        first_trainable: 0,
        divisor: rows,
        form: LossForm::HuggingFace,
    };
    let sums = walk(network, batch, &recipe, |stage, tensors, _| {
        by_name(&network.stages()[stage], &tensors, &mut gradients)
    })?;
    outputs.insert("loss".into(), vec![(sums.total / rows) as f32]);
    Ok((outputs, gradients))
}

type Named = BTreeMap<String, Vec<f32>>;

/// Cuts a stage's gradients into parameters by Hugging Face name.
fn by_name(stage: &Stage, gradients: &[Tensor], all: &mut Named) -> Result<(), TrainError> {
    for (param, gradient) in stage.params().iter().zip(gradients) {
        let flat = if gradient.defined() { values(gradient)? } else { vec![0.0; param.len() as usize] };
        for (name, _, span) in param.parts() {
            let start = param.offset as usize;
            all.insert(name.to_owned(), flat[span.start - start..span.end - start].to_vec());
        }
    }
    Ok(())
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, TrainError> {
    let flat = tensor.detach().to_kind(Kind::Float).contiguous().view([-1]);
    Ok(Vec::<f32>::try_from(flat).map_err(ModelError::from)?)
}

/// Compares everything of a reference file with ours, and ours with it: what one side lacks is an error.
fn compare(
    reference: &Path,
    file: &str,
    ours: &Named,
    tolerance: f64,
    into: &mut Vec<Comparison>,
) -> Result<(), TrainError> {
    let exact = reference.join(format!("{file}_f64.safetensors"));
    let path = if exact.is_file() { exact } else { reference.join(format!("{file}.safetensors")) };
    let theirs: Tensors = read_safetensors(&path)?;
    let largest = theirs.values().map(|(_, values)| magnitude(values)).fold(0.0, f64::max);
    let mut used = 0;
    for (name, values) in ours {
        let found = theirs.iter().find(|(full, _)| *full == name || full.ends_with(&format!(".{name}")));
        let Some((full, (_, expected))) = found else {
            return Err(unfit(&path, &format!("lacks {name}")));
        };
        if expected.len() != values.len() {
            let sizes = format!("{name} has {} elements there, {} here", expected.len(), values.len());
            return Err(unfit(&path, &sizes));
        }
        used += 1;
        into.push(difference(full, (values, expected), ZERO * largest, tolerance));
    }
    if used == theirs.len() {
        return Ok(());
    }
    let known = |full: &&String| ours.keys().any(|n| *full == n || full.ends_with(&format!(".{n}")));
    let other: Vec<&String> = theirs.keys().filter(|full| !known(full)).collect();
    Err(unfit(&path, &format!("holds {other:?}, which the model does not have")))
}

/// Compares ours and theirs; at or below `zero` theirs count as zero.
fn difference(name: &str, (ours, theirs): (&[f32], &[f32]), zero: f64, tolerance: f64) -> Comparison {
    let apart: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    // max() would pass over a NaN.
    let largest = if apart.iter().any(|d| d.is_nan()) { f64::NAN } else { magnitude(&apart) };
    let size = magnitude(theirs);
    let absolute = size <= zero || name.ends_with("key.bias");
    let difference = if absolute { largest } else { largest / size };
    Comparison { name: name.into(), difference, absolute, tolerance }
}

fn magnitude(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |most: f64, v| most.max(f64::from(v.abs())))
}
