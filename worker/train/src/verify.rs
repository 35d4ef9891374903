//! A network held against values that another program computed with the same weights.
//!
//! A reference folder holds `inputs.safetensors` (input_ids, attention_mask, token_type_ids, start_positions,
//! end_positions), `outputs.safetensors` (hidden_0 … hidden_L, start_logits, end_logits, loss) and
//! `grads.safetensors` (by Hugging Face parameter name), all of the span head with dropout off and the loss in
//! Hugging Face's form. Where a file of the same name with `_f64` is there, it is the yardstick. Hidden states and
//! logits at padding are not compared: only that form of the loss reads them, and on fine-tuned models rounding
//! grows there to ten times what it is elsewhere, in transformers as here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use squad_model::load::read_integers;
use squad_model::network::Dropout;
use squad_model::{
    EncoderConfig, HeadKind, Inputs, LossForm, ModelError, Network, Scores, Stage, Targets, load_network,
};
use tch::{Device, Kind, Tensor};

use crate::backward::{MicroBatch, Recipe, walk};
use crate::error::TrainError;
use crate::trace::Trace;

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
    /// Whether the difference is allowed; NaN never is.
    pub fn within(&self) -> bool {
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
    let batch = batch(&reference.join("inputs.safetensors"), network.config())?;
    let (outputs, gradients) = compute(&network, &batch)?;
    let (path, theirs) = read(reference, "outputs")?;
    let padding = padding(&batch.inputs)?;
    let blank = |all: Named| all.into_iter().map(|(name, v)| (name, without(v, &padding))).collect::<Named>();
    let mut tensors =
        compare(&blank(outputs), &blank(theirs), tolerance.values).map_err(|what| unfit(&path, &what))?;
    let (path, theirs) = read(reference, "grads")?;
    tensors.extend(compare(&gradients, &theirs, tolerance.gradients).map_err(|what| unfit(&path, &what))?);
    Ok(Verification {
        family: network.config().family.model_type(),
        parameters: network.parameters(),
        passed: tensors.iter().all(Comparison::within),
        tensors,
    })
}

/// The reference's inputs as a micro-batch.
fn batch(path: &Path, config: &EncoderConfig) -> Result<MicroBatch, TrainError> {
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
    let beyond = |values: &[i64], rows: i64| values.iter().any(|id| !(0..rows).contains(id));
    if beyond(ids, config.vocab_size)
        || beyond(types, config.type_vocab_size.max(1))
        || width > config.max_tokens()
    {
        return Err(unfit(path, "holds tokens, segments or positions that the model does not have"));
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
        first_row: 0,
        first_trainable: 0,
        divisor: rows,
        form: LossForm::HuggingFace,
        recompute: false,
    };
    let sums = walk(network, batch, &recipe, &Trace::off(), |stage, tensors, _| {
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

/// The values of a reference file, the exact ones where they are there.
fn read(reference: &Path, file: &str) -> Result<(PathBuf, Named), TrainError> {
    let exact = reference.join(format!("{file}_f64.safetensors"));
    let path = if exact.is_file() { exact } else { reference.join(format!("{file}.safetensors")) };
    let all = squad_weights::read(&path).map_err(ModelError::from)?;
    Ok((path, all.into_iter().map(|(name, (_, values))| (name, values)).collect()))
}

/// True at padding, row by row.
fn padding(inputs: &Inputs) -> Result<Vec<bool>, TrainError> {
    Ok(Vec::<bool>::try_from(inputs.valid.logical_not().view([-1])).map_err(ModelError::from)?)
}

/// Values of each token, with zeros at padding; others as they are.
fn without(mut values: Vec<f32>, padding: &[bool]) -> Vec<f32> {
    if values.len() > 1 && values.len().is_multiple_of(padding.len()) {
        let width = values.len() / padding.len();
        for (token, _) in values.chunks_mut(width).zip(padding).filter(|(_, padding)| **padding) {
            token.fill(0.0);
        }
    }
    values
}

/// Compares everything of a reference with ours, and ours with it: what one side lacks is an error, a sentence's
/// middle.
fn compare(ours: &Named, theirs: &Named, tolerance: f64) -> Result<Vec<Comparison>, String> {
    let largest = theirs.values().map(|values| magnitude(values)).fold(0.0, f64::max);
    let mut all = Vec::new();
    for (name, values) in ours {
        let found = theirs.iter().find(|(full, _)| *full == name || full.ends_with(&format!(".{name}")));
        let Some((full, expected)) = found else { return Err(format!("lacks {name}")) };
        if expected.len() != values.len() {
            return Err(format!("{name} has {} elements there, {} here", expected.len(), values.len()));
        }
        all.push(difference(full, (values, expected), ZERO * largest, tolerance));
    }
    let other: Vec<&String> = theirs.keys().filter(|full| !all.iter().any(|c| c.name == **full)).collect();
    if other.is_empty() { Ok(all) } else { Err(format!("holds {other:?}, which the model does not have")) }
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
