//! `model.yml` as `config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::family::Family;
use super::rename::PADDING_ROWS;

/// A configuration of the replaced program, as far as it says how a model computes.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "MODEL")]
    model: Model,
    #[serde(rename = "INITIALIZER", default)]
    initializer: BTreeMap<String, Vec<Value>>,
}

#[derive(Deserialize)]
struct Model {
    vocab_size: u32,
    units: u32,
    /// Width of the feed-forward layers.
    hidden_size: u32,
    num_layers: u32,
    num_heads: u32,
    max_length: u32,
    activation: String,
    layer_norm_eps: f64,
    hidden_dropout_prob: f64,
    attention_dropout_prob: f64,
    pos_embed_type: Option<String>,
    num_token_types: Option<u32>,
    embed_size: Option<u32>,
    num_groups: Option<u32>,
    inner_size: Option<u32>,
    num_stacked_ffn: Option<u32>,
    bottleneck_strategy: Option<String>,
    normalization: Option<String>,
    trigram_embed: Option<bool>,
    use_bottleneck: Option<bool>,
    classifier_activation: Option<bool>,
}

/// The fields of a `config.json` for Hugging Face's class of this family, from the text of a `model.yml`. Which
/// head the model has is not in it.
///
/// # Errors
/// A sentence that names the field that is missing or unknown.
pub fn config_json(model_yml: &str, family: Family) -> Result<Map<String, Value>, String> {
    let file: File = serde_norway::from_str(model_yml)
        .map_err(|e| format!("not a model configuration of GluonNLP (with a section MODEL): {e}"))?;
    let model = &file.model;
    if model.pos_embed_type.as_deref().is_some_and(|kind| kind != "learned") {
        return Err("MODEL.pos_embed_type must be learned; other positions are not known here".into());
    }
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("model_type", family.model_type().into());
    set("vocab_size", model.vocab_size.into());
    set("hidden_size", model.units.into());
    set("num_hidden_layers", model.num_layers.into());
    set("num_attention_heads", model.num_heads.into());
    set("intermediate_size", model.hidden_size.into());
    set("hidden_act", activation(&model.activation)?.into());
    set("hidden_dropout_prob", model.hidden_dropout_prob.into());
    set("attention_probs_dropout_prob", model.attention_dropout_prob.into());
    set("layer_norm_eps", model.layer_norm_eps.into());
    set("initializer_range", initializer_range(&file.initializer).into());
    set("dtype", "float32".into());
    if family.is_roberta() {
        set("max_position_embeddings", (i64::from(model.max_length) + PADDING_ROWS).into());
        set("type_vocab_size", 1.into());
        set("bos_token_id", 0.into());
        set("pad_token_id", 1.into());
        set("eos_token_id", 2.into());
    } else {
        set("max_position_embeddings", model.max_length.into());
        set("type_vocab_size", required(model.num_token_types, "num_token_types")?.into());
        set("pad_token_id", 0.into());
    }
    match family {
        Family::Electra => {
            set("embedding_size", required(model.embed_size, "embed_size")?.into());
        }
        Family::Albert => fields.extend(albert(model)?),
        Family::MobileBert => fields.extend(mobile_bert(model)?),
        Family::Bert | Family::Roberta | Family::XlmRoberta => {}
    }
    Ok(fields)
}

fn albert(model: &Model) -> Result<Map<String, Value>, String> {
    Ok(object(json!({
        "embedding_size": required(model.embed_size, "embed_size")?,
        "num_hidden_groups": required(model.num_groups, "num_groups")?,
        "inner_group_num": 1,
        "classifier_dropout_prob": 0.1,
        "bos_token_id": 2,
        "eos_token_id": 3,
    })))
}

fn mobile_bert(model: &Model) -> Result<Map<String, Value>, String> {
    let normalization = required(model.normalization.as_deref(), "normalization")?;
    if !["no_norm", "layer_norm"].contains(&normalization) {
        return Err(format!("MODEL.normalization is {normalization}; no_norm and layer_norm are known here"));
    }
    // What attention is given: its query and key a narrow input of their own, all the narrow input, or the wide.
    let (shared, narrow) = match required(model.bottleneck_strategy.as_deref(), "bottleneck_strategy")? {
        "qk_sharing" => (true, false),
        "from_bottleneck" => (false, true),
        "from_input" => (false, false),
        other => {
            return Err(format!(
                "MODEL.bottleneck_strategy is {other}; qk_sharing, from_bottleneck and from_input are known here"
            ));
        }
    };
    Ok(object(json!({
        "embedding_size": required(model.embed_size, "embed_size")?,
        "trigram_input": required(model.trigram_embed, "trigram_embed")?,
        "use_bottleneck": required(model.use_bottleneck, "use_bottleneck")?,
        "intra_bottleneck_size": required(model.inner_size, "inner_size")?,
        "key_query_shared_bottleneck": shared,
        "use_bottleneck_attention": narrow,
        "num_feedforward_networks": required(model.num_stacked_ffn, "num_stacked_ffn")?,
        "normalization_type": normalization,
        "classifier_activation": model.classifier_activation.unwrap_or(false),
    })))
}

fn required<T>(value: Option<T>, field: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("MODEL.{field} is missing"))
}

/// Hugging Face's name of an activation.
fn activation(name: &str) -> Result<&'static str, String> {
    Ok(match name {
        "gelu" | "gelu(erf)" => "gelu",
        "gelu(tanh)" => "gelu_new",
        "relu" => "relu",
        other => {
            return Err(format!(
                "MODEL.activation is {other}; gelu, gelu(erf), gelu(tanh) and relu are known here"
            ));
        }
    })
}

/// Standard deviation of new weights: the last of `[truncnorm, mean, deviation]`, which BERT's paper has as 0.02.
fn initializer_range(initializer: &BTreeMap<String, Vec<Value>>) -> f64 {
    match initializer.get("weight").map(Vec::as_slice) {
        Some([kind, _, deviation]) if kind == "truncnorm" => deviation.as_f64(),
        _ => None,
    }
    .unwrap_or(0.02)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
