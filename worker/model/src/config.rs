//! `config.json` of an encoder, as Hugging Face writes it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// The shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Rows of the word embedding table.
    pub vocab_size: i64,
    /// Width of the hidden states, C.
    pub hidden_size: i64,
    /// Number of layers, L.
    pub num_hidden_layers: i64,
    /// Attention heads in a layer.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: i64,
    /// Rows of the segment embedding table.
    pub type_vocab_size: i64,
    /// The activation of the feed-forward layers.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout of hidden states.
    pub hidden_dropout: f64,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// The padding token, whose embedding gets no gradient (as `padding_idx` in PyTorch).
    pub pad_token_id: i64,
}

/// The activation of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + erf(x / √2))`.
    GeluErf,
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl EncoderConfig {
    /// Reads `config.json` of `folder`, and gives back its JSON too, which is written on when saving.
    ///
    /// # Errors
    /// When the file is missing or broken, when a field is missing, or when it describes an architecture
    /// other than BERT's.
    pub fn read(folder: &Path) -> Result<(Self, Map<String, Value>), ModelError> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Err(ModelError::NoFile { folder: folder.into(), file: "config.json" });
        }
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let wrong = |message: String| ModelError::Config { path: path.clone(), message };
        let json: Value =
            serde_json::from_str(&text).map_err(|e| wrong(format!("not readable as JSON: {e}")))?;
        let Value::Object(fields) = json else { return Err(wrong("not a JSON object".into())) };
        let config = Self::from_fields(&fields).map_err(wrong)?;
        Ok((config, fields))
    }

    /// Reads the fields of a `config.json`.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        require(fields, "model_type", &["bert"])?;
        require(fields, "position_embedding_type", &["absolute"])?;
        for switch in ["is_decoder", "add_cross_attention"] {
            if fields.get(switch).and_then(Value::as_bool) == Some(true) {
                return Err(format!("{switch} is true; only encoders can be fine-tuned here"));
            }
        }
        let config = Self {
            vocab_size: count(fields, "vocab_size")?,
            hidden_size: count(fields, "hidden_size")?,
            num_hidden_layers: count(fields, "num_hidden_layers")?,
            num_attention_heads: count(fields, "num_attention_heads")?,
            intermediate_size: count(fields, "intermediate_size")?,
            max_position_embeddings: count(fields, "max_position_embeddings")?,
            type_vocab_size: count(fields, "type_vocab_size")?,
            activation: activation(fields)?,
            layer_norm_eps: number(fields, "layer_norm_eps", Some(1e-12))?,
            hidden_dropout: number(fields, "hidden_dropout_prob", None)?,
            attention_dropout: number(fields, "attention_probs_dropout_prob", None)?,
            initializer_range: number(fields, "initializer_range", Some(0.02))?,
            pad_token_id: fields.get("pad_token_id").and_then(Value::as_i64).unwrap_or(0),
        };
        if config.hidden_size % config.num_attention_heads != 0 {
            return Err(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                config.hidden_size, config.num_attention_heads
            ));
        }
        if config.type_vocab_size < 2 {
            return Err("type_vocab_size is 1; question and context need two segments".into());
        }
        if !(0..config.vocab_size).contains(&config.pad_token_id) {
            return Err(format!("pad_token_id {} is outside the vocabulary", config.pad_token_id));
        }
        Ok(config)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }
}

fn require(fields: &Map<String, Value>, field: &str, allowed: &[&str]) -> Result<(), String> {
    match fields.get(field) {
        // Old files leave both fields out; then they mean the first value.
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
        Some(other) => Err(format!("{field} is {other}; this version knows {}", allowed.join(", "))),
    }
}

fn count(fields: &Map<String, Value>, field: &str) -> Result<i64, String> {
    match fields.get(field) {
        None => Err(format!("{field} is missing")),
        Some(value) => value
            .as_i64()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("{field} is {value}; it must be a positive whole number")),
    }
}

fn number(fields: &Map<String, Value>, field: &str, default: Option<f64>) -> Result<f64, String> {
    match fields.get(field) {
        None | Some(Value::Null) => default.ok_or_else(|| format!("{field} is missing")),
        Some(value) => value
            .as_f64()
            .filter(|n| *n >= 0.0)
            .ok_or_else(|| format!("{field} is {value}; it must be a number, 0 or more")),
    }
}

fn activation(fields: &Map<String, Value>) -> Result<Activation, String> {
    match fields.get("hidden_act").and_then(Value::as_str) {
        Some("gelu") => Ok(Activation::GeluErf),
        Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some(other) => Err(format!("hidden_act is {other}; this version knows gelu, gelu_new, relu")),
        None => Err("hidden_act is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bert() -> Map<String, Value> {
        let Value::Object(fields) = json!({
            "model_type": "bert", "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 128,
            "type_vocab_size": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        }) else {
            unreachable!()
        };
        fields
    }

    #[test]
    fn reads_bert() {
        let config = EncoderConfig::from_fields(&bert()).unwrap();
        assert_eq!((config.head_dim(), config.layer_norm_eps), (8, 1e-12));
    }

    #[test]
    fn names_the_field_at_fault() {
        for (field, value, words) in [
            ("hidden_size", Value::Null, "hidden_size"),
            ("hidden_size", json!(30), "multiple of num_attention_heads"),
            ("model_type", json!("t5"), "model_type is \"t5\""),
            ("hidden_act", json!("swish"), "hidden_act is swish"),
            ("position_embedding_type", json!("relative_key"), "position_embedding_type"),
            ("is_decoder", json!(true), "is_decoder"),
        ] {
            let mut fields = bert();
            fields.insert(field.into(), value);
            let error = EncoderConfig::from_fields(&fields).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
