//! Stages to Hugging Face folders.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::heads::HeadKind;
use crate::load::Tensors;
use crate::network::Network;

/// All weights by Hugging Face name: shape and values, in the order of names.
pub fn named_weights(network: &Network) -> Tensors {
    let head = network.stages().len() - 1;
    let config = network.config();
    let own = config.family.prefix();
    let mut all = Tensors::new();
    if config.type_vocab_size == 0 {
        // Left out on loading; Hugging Face's classes want it.
        let width = config.embedding_size;
        let name = format!("{own}embeddings.token_type_embeddings.weight");
        all.insert(name, (vec![1, width], vec![0.0; width as usize]));
    }
    for (index, stage) in network.stages().iter().enumerate() {
        let values = stage.to_vec();
        let prefix = if index == head { "" } else { own };
        for param in stage.params() {
            for (name, shape, span) in param.parts() {
                all.insert(format!("{prefix}{name}"), (shape, values[span].to_vec()));
            }
        }
    }
    all
}

/// SHA-256 over the bytes of all weights in the order of names: equal for equal models.
pub fn weights_sha256(network: &Network) -> String {
    let mut hash = Sha256::new();
    for (_, values) in named_weights(network).values() {
        hash.update(bytes(values));
    }
    hex::encode(hash.finalize())
}

/// Writes `model.safetensors` with these contents; the caller makes the write atomic and durable.
///
/// # Errors
/// When the file cannot be written.
pub fn write_weights(network: &Network, path: &Path) -> Result<(), ModelError> {
    write_tensors(&named_weights(network), path)
}

/// Writes a safetensors file with these 32-bit tensors; the caller makes the write atomic and durable.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(tensors: &Tensors, path: &Path) -> Result<(), ModelError> {
    let weights: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name.as_str(), shape.iter().map(|n| *n as usize).collect(), bytes(values))
        })
        .collect();
    let damaged =
        |e: safetensors::SafeTensorError| ModelError::Damaged { path: path.into(), message: e.to_string() };
    let views = weights
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(damaged)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let file = safetensors::serialize(views, Some(metadata)).map_err(damaged)?;
    std::fs::write(path, file).map_err(ModelError::io(path))
}

/// `config.json` of the network: the encoder's own, with the head's architecture named.
pub fn config_json(network: &Network) -> Value {
    let mut fields = network.config_json().clone();
    // Where the encoder came from says nothing about the model that is saved.
    fields.remove("_name_or_path");
    fields.insert("dtype".into(), json!("float32"));
    match network.head() {
        HeadKind::Span => {
            fields.insert("architectures".into(), json!([network.config().family.architecture()]));
            fields.remove("squadron");
        }
        HeadKind::Conditional { units } => {
            fields.insert("architectures".into(), json!(["SquadronForConditionalQuestionAnswering"]));
            fields.insert("squadron".into(), json!({"head": "conditional", "units": units}));
        }
    }
    Value::Object(fields)
}

/// The head that a saved model's `config.json` names, `None` for an encoder without one.
pub fn head_of(config: &serde_json::Map<String, Value>) -> Option<HeadKind> {
    if let Some(own) = config.get("squadron") {
        return Some(HeadKind::Conditional {
            units: own.get("units").and_then(Value::as_i64).unwrap_or(768),
        });
    }
    let names = config.get("architectures").and_then(Value::as_array)?;
    names
        .iter()
        .any(|n| n.as_str().is_some_and(|n| n.ends_with("ForQuestionAnswering")))
        .then_some(HeadKind::Span)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
