//! Stages to Hugging Face folders.

use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use squad_weights::{Existing, Tensors};

use crate::error::ModelError;
use crate::heads::HeadKind;
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

/// Writes all weights to `path` as safetensors, whole and durable or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_weights(network: &Network, path: &Path) -> Result<(), ModelError> {
    write_tensors(&named_weights(network), path)
}

/// Writes these tensors; see [`write_weights`].
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(tensors: &Tensors, path: &Path) -> Result<(), ModelError> {
    let views =
        tensors.iter().map(|(name, (shape, values))| (name.as_str(), shape.as_slice(), values.as_slice()));
    Ok(squad_weights::write_safetensors(path, views, Existing::Replace)?)
}

/// `config.json` of the network: the encoder's own, with the head's architecture named.
pub fn config_json(network: &Network) -> Value {
    let mut fields = network.config_json().clone();
    // Where the encoder came from says nothing about the model that is saved.
    fields.remove("_name_or_path");
    fields.insert("dtype".into(), json!("float32"));
    let mut own = Map::new();
    if single_separator(&fields) {
        own.insert("separators".into(), json!("single"));
    }
    match network.head() {
        HeadKind::Span => {
            let class = format!("{}ForQuestionAnswering", network.config().family.class());
            fields.insert("architectures".into(), json!([class]));
        }
        HeadKind::Conditional { units } => {
            fields.insert("architectures".into(), json!(["SquadronForConditionalQuestionAnswering"]));
            own.insert("head".into(), json!("conditional"));
            own.insert("units".into(), json!(units));
        }
    }
    fields.remove(OWN);
    if !own.is_empty() {
        fields.insert(OWN.into(), Value::Object(own));
    }
    Value::Object(fields)
}

/// Where `config.json` keeps what only this program knows.
const OWN: &str = "squadron";

/// The head that a saved model's `config.json` names, `None` for an encoder without one.
pub fn head_of(config: &Map<String, Value>) -> Option<HeadKind> {
    if let Some(own) = config.get(OWN).filter(|own| own["head"] == "conditional") {
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

/// Whether a saved model's `config.json` says that it was trained with one separator between question and context
/// where its family has two.
pub fn single_separator(config: &Map<String, Value>) -> bool {
    config.get(OWN).is_some_and(|own| own["separators"] == "single")
}

/// Makes [`single_separator`] true of the saved network's `config.json`.
pub fn note_single_separator(config: &mut Map<String, Value>) {
    let own = config.entry(OWN).or_insert_with(|| json!({}));
    if let Some(own) = own.as_object_mut() {
        own.insert("separators".into(), json!("single"));
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
