//! Reading golden values, and comparing with them.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use squad_model::load::Tensors;
use squad_model::{Network, Stage};

/// Whole-number tensors of a safetensors file.
pub(crate) fn integers(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<i64>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter(|(_, view)| view.dtype() == Dtype::I64)
        .map(|(name, view)| {
            let values = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        })
        .collect()
}

/// Floating-point tensors of a safetensors file.
pub(crate) fn floats(path: &Path) -> Tensors {
    squad_model::load::read_safetensors(path).unwrap()
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
const CANCELLED: &[&str] = &["key.bias", "start_scores.bias", "end_scores.2.bias", "end_scores.3.bias"];

/// The largest difference over parameters: relative, but absolute where the gradient is mathematically zero.
/// Names the parameter.
pub(crate) fn worst(ours: &BTreeMap<String, Vec<f32>>, theirs: &Tensors) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (name, values) in ours {
        let found = ["", "bert."].iter().find_map(|prefix| theirs.get(&format!("{prefix}{name}")));
        let Some((_, expected)) = found else { panic!("no golden value for {name}") };
        let difference = if CANCELLED.iter().any(|end| name.ends_with(end)) {
            absolute(values, expected)
        } else {
            relative(values, expected)
        };
        if difference > worst.0 {
            worst = (difference, name.clone());
        }
    }
    worst
}
