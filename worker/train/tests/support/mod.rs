//! Reading golden values, and comparing with them.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::path::Path;

use squad_model::{Network, Stage};
use squad_weights::Tensors;

/// Whole-number tensors of a safetensors file.
pub(crate) fn integers(path: &Path) -> squad_model::load::Integers {
    squad_model::load::read_integers(path).unwrap()
}

/// Floating-point tensors of a safetensors file.
pub(crate) fn floats(path: &Path) -> Tensors {
    squad_weights::read(path).unwrap()
}

/// Largest absolute difference over the largest magnitude of `theirs`.
pub(crate) fn relative(ours: &[f32], theirs: &[f32]) -> f64 {
    let size = theirs.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    absolute(ours, theirs) / size.max(1e-30)
}

/// Largest absolute difference.
pub(crate) fn absolute(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).fold(0.0f64, |m, (a, b)| m.max(f64::from((a - b).abs())))
}

/// The values of a tensor.
pub(crate) fn values(tensor: &tch::Tensor) -> Vec<f32> {
    let tensor = tensor.detach().to_kind(tch::Kind::Float).contiguous();
    let mut out = vec![0.0; tensor.numel()];
    let count = out.len();
    tensor.copy_data(&mut out, count);
    out
}

/// Cuts each stage's flat values into parameters by Hugging Face name, without the architecture's prefix.
pub(crate) fn by_name(network: &Network, flat: &[Vec<f32>]) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    for (stage, values) in network.stages().iter().zip(flat) {
        for param in stage.params() {
            for (name, _, span) in param.parts() {
                all.insert(name.to_owned(), values[span].to_vec());
            }
        }
    }
    all
}

/// The weights of all stages.
pub(crate) fn weights(network: &Network) -> Vec<Vec<f32>> {
    network.stages().iter().map(Stage::to_vec).collect()
}

/// Biases that a softmax cancels: their gradient is mathematically zero.
const CANCELLED: &[&str] =
    &["key.bias", "qa_outputs.bias", "start_scores.bias", "end_scores.2.bias", "end_scores.3.bias"];

/// Whether a parameter's gradient is mathematically zero, so that what is computed for it is rounding, which differs from
/// processor to processor.
pub(crate) fn is_cancelled(name: &str) -> bool {
    CANCELLED.iter().any(|end| name.ends_with(end))
}

/// A parameter whose gradient is this much below the largest of all holds mostly the rounding of 32-bit sums.
const FLOOR: f64 = 1e-4;

/// Each parameter's difference: relative to its largest value (but at least to the floor), absolute where the
/// gradient is mathematically zero. The largest comes first.
pub(crate) fn differences(ours: &BTreeMap<String, Vec<f32>>, theirs: &Tensors) -> Vec<(f64, String)> {
    differences_but(ours, theirs, |_| false)
}

/// The same where further parameters' gradients are mathematically zero.
pub(crate) fn differences_but(
    ours: &BTreeMap<String, Vec<f32>>,
    theirs: &Tensors,
    zero: impl Fn(&str) -> bool,
) -> Vec<(f64, String)> {
    let magnitude = |values: &[f32]| values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let largest = theirs.values().map(|(_, values)| magnitude(values)).fold(0.0, f64::max);
    let mut all: Vec<(f64, String)> = ours
        .iter()
        .map(|(name, values)| {
            let found = ["", "bert."].iter().find_map(|prefix| theirs.get(&format!("{prefix}{name}")));
            let Some((_, expected)) = found else { panic!("no golden value for {name}") };
            let size =
                if is_cancelled(name) || zero(name) { 1.0 } else { magnitude(expected).max(FLOOR * largest) };
            (absolute(values, expected) / size, name.clone())
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all
}
