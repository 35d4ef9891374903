//! What a model looks like, from its folder or from the zoo. Nothing is fetched.

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};
use squad_fetch::zoo::{self, Entry};
use squad_fetch::{FetchOptions, model_cache, resolve_model};
use squad_model::{ConfigFile, EncoderConfig};
use squad_train::plan::Shape;

/// The shape of a job's model: of its folder, of one that was fetched before, or of the zoo's entry of this name.
///
/// # Errors
/// When none of them is there, or its `config.json` cannot be used.
pub(crate) fn shape(model: &str) -> anyhow::Result<Shape> {
    let mut options = FetchOptions::from_env();
    options.hub.offline = true;
    if let Ok(folder) = resolve_model(model, Path::new("."), &model_cache(), &options) {
        let ConfigFile { config, json, .. } = EncoderConfig::read(&folder)?;
        return Ok(Shape { config, json, folder: Some(folder) });
    }
    let Some(entry) = zoo::find(model) else {
        let near = zoo::nearest(model).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        anyhow::bail!(
            "{model} is no folder, was not fetched (squadctl models fetch brings models), and is no name that \
             squadctl models list shows{near}"
        );
    };
    let json = fields(entry);
    let config = EncoderConfig::from_fields(&json)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("the shape of {model}"))?;
    Ok(Shape { config, json, folder: None })
}

/// A `config.json` of a model of the zoo.
fn fields(entry: &Entry) -> Map<String, Value> {
    let shape = entry.shape;
    let mut fields = Map::new();
    let mut put = |more: Value| {
        if let Value::Object(more) = more {
            fields.extend(more);
        }
    };
    put(json!({
        "model_type": entry.family, "num_hidden_layers": shape.layers, "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads, "intermediate_size": 4 * shape.hidden,
        "vocab_size": entry.words.vocabulary, "max_position_embeddings": 512, "type_vocab_size": 2,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }));
    match entry.family {
        "roberta" | "xlm-roberta" => {
            put(json!({"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}));
        }
        // As published: the second version has no dropout.
        "albert" => put(json!({
            "embedding_size": 128, "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        })),
        "electra" => {
            let small = shape.hidden == 256;
            put(json!({"embedding_size": if small { 128 } else { shape.hidden }}));
        }
        "mobilebert" => put(json!({
            "embedding_size": 128, "intermediate_size": 512, "intra_bottleneck_size": 128,
            "num_feedforward_networks": 4, "hidden_act": "relu", "hidden_dropout_prob": 0.0,
        })),
        _ => {}
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_model::{HeadKind, count_parameters};

    #[test]
    fn shapes_of_the_zoo_have_its_parameters() {
        for entry in zoo::entries() {
            let config = EncoderConfig::from_fields(&fields(entry)).unwrap();
            let (encoder, _) = count_parameters(&config, HeadKind::Span);
            // The hub's tables of these have two rows for padding, and a segment table of one row.
            let rows = if config.family.is_roberta() { 3 } else { 0 };
            let published = encoder - rows * config.embedding_size;
            assert_eq!(published as u64, entry.parameters, "{}", entry.name);
        }
    }

    #[test]
    fn what_is_nowhere_is_refused_with_a_name_that_is_near() {
        let refusal = shape("google_albert_bse_v2").unwrap_err().to_string();
        assert!(refusal.contains("did you mean google_albert_base_v2?"), "{refusal}");
        assert!(shape("google_en_uncased_bert_base").is_ok());
    }
}
