//! `config.json` of an encoder, as Hugging Face writes it.

use std::path::Path;

use serde_json::{Map, Value, json};
use squad_weights::Family;

use crate::error::ModelError;
use crate::family::Traits;
use fields::Fields;

mod fields;
#[cfg(test)]
mod tests;

/// The shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The architecture.
    pub family: Family,
    /// Rows of the word embedding table.
    pub vocab_size: i64,
    /// Width of the hidden states, C.
    pub hidden_size: i64,
    /// Width of the embeddings, before a projection to C where it differs.
    pub embedding_size: i64,
    /// Number of layers, L.
    pub num_hidden_layers: i64,
    /// Attention heads in a layer.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Rows of the position embedding table; see [`Self::max_tokens`].
    pub max_position_embeddings: i64,
    /// Rows of the segment embedding table; 0 for none.
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
    /// The padding token, whose embedding gets no gradient (as `padding_idx` in PyTorch); `None` where every
    /// row learns.
    pub pad_token_id: Option<i64>,
    /// MobileBERT's own sizes.
    pub bottleneck: Option<Bottleneck>,
}

/// What a folder's `config.json` says.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The encoder's shape.
    pub config: EncoderConfig,
    /// All fields, which are written on when a fine-tuned model is saved.
    pub json: Map<String, Value>,
    /// What was mended, and why.
    pub warnings: Vec<String>,
}

/// Sizes inside a MobileBERT layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Width between the bottlenecks.
    pub size: i64,
    /// Feed-forward networks one after the other.
    pub feed_forwards: i64,
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
    /// Reads `config.json` of `folder`. Where the file is known to be wrong it is mended, with a warning.
    ///
    /// # Errors
    /// When the file is missing or broken, when a field is missing, unknown or contradicts another, or when it
    /// describes an architecture that is not known here.
    pub fn read(folder: &Path) -> Result<ConfigFile, ModelError> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Err(ModelError::NoFile { folder: folder.into(), file: "config.json" });
        }
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let wrong = |message: String| ModelError::Config { path: path.clone(), message };
        let json: Value =
            serde_json::from_str(&text).map_err(|e| wrong(format!("not readable as JSON: {e}")))?;
        let Value::Object(mut fields) = json else { return Err(wrong("not a JSON object".into())) };
        let warnings = mend(&mut fields).into_iter().map(|w| format!("{}: {w}", path.display())).collect();
        let config = Self::from_fields(&fields).map_err(wrong)?;
        Ok(ConfigFile { config, json: fields, warnings })
    }

    /// Reads the fields of a `config.json`.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let family = family(fields)?;
        let fields = Fields(fields);
        fields.refuse_unknown(own_fields(family))?;
        fields.refuse_decoders()?;
        let hidden_size = fields.count("hidden_size")?;
        let vocab_size = fields.count("vocab_size")?;
        let segments = family.has_segments().then_some(2);
        let config = Self {
            family,
            vocab_size,
            hidden_size,
            embedding_size: match family {
                Family::Electra | Family::Albert | Family::MobileBert => fields.count("embedding_size")?,
                _ => hidden_size,
            },
            num_hidden_layers: fields.count("num_hidden_layers")?,
            num_attention_heads: fields.count("num_attention_heads")?,
            intermediate_size: fields.count("intermediate_size")?,
            max_position_embeddings: fields.count("max_position_embeddings")?,
            type_vocab_size: fields.count_or("type_vocab_size", segments)?,
            activation: fields.activation()?,
            layer_norm_eps: fields.number("layer_norm_eps", Some(1e-12))?,
            hidden_dropout: fields.number("hidden_dropout_prob", None)?,
            attention_dropout: fields.number("attention_probs_dropout_prob", None)?,
            initializer_range: fields.number("initializer_range", Some(0.02))?,
            pad_token_id: fields.pad(i64::from(family.is_roberta()), vocab_size)?,
            bottleneck: (family == Family::MobileBert).then(|| bottleneck(fields)).transpose()?,
        };
        config.check(fields)?;
        Ok(config)
    }

    /// Contradictions between fields.
    fn check(&self, fields: Fields<'_>) -> Result<(), String> {
        let (field, width) = match self.bottleneck {
            Some(bottleneck) => ("intra_bottleneck_size", bottleneck.size),
            None => ("hidden_size", self.hidden_size),
        };
        if width % self.num_attention_heads != 0 {
            return Err(format!(
                "{field} {width} is not a multiple of num_attention_heads {}",
                self.num_attention_heads
            ));
        }
        if self.family.has_segments() && self.type_vocab_size < 2 {
            return Err("type_vocab_size is 1; question and context need two segments".into());
        }
        if self.family.is_roberta() && self.pad_token_id.is_none() {
            return Err("pad_token_id is null; positions of this family are counted from it".into());
        }
        if self.max_tokens() < 1 {
            return Err(format!(
                "max_position_embeddings {} leaves no position after those up to pad_token_id",
                self.max_position_embeddings
            ));
        }
        if self.family == Family::Albert {
            for groups in ["num_hidden_groups", "inner_group_num"] {
                fields.only(groups, &json!(1))?;
            }
        }
        Ok(())
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> i64 {
        self.bottleneck.map_or(self.hidden_size, |b| b.size) / self.num_attention_heads
    }

    /// The position of the first token.
    pub fn first_position(&self) -> i64 {
        if self.family.is_roberta() { self.pad_token_id.unwrap_or(0) + 1 } else { 0 }
    }

    /// Longest sequence, in tokens.
    pub fn max_tokens(&self) -> i64 {
        self.max_position_embeddings - self.first_position()
    }

    /// Stages between embeddings and head: the layers, or one where all share their weights.
    pub fn layer_stages(&self) -> i64 {
        if self.family.shares_layers() { 1 } else { self.num_hidden_layers }
    }
}

fn family(fields: &Map<String, Value>) -> Result<Family, String> {
    // The oldest files leave the field out; then they are BERT's.
    let name = fields.get("model_type").cloned().unwrap_or_else(|| "bert".into());
    Family::ALL.into_iter().find(|family| name == family.model_type()).ok_or_else(|| {
        let known: Vec<&str> = Family::ALL.iter().map(|family| family.model_type()).collect();
        format!("model_type is {name}; known here are {}", known.join(", "))
    })
}

/// Fields that only this family has.
fn own_fields(family: Family) -> &'static [&'static str] {
    match family {
        Family::Albert => &["embedding_size", "num_hidden_groups", "inner_group_num"],
        Family::Electra => &["embedding_size"],
        Family::MobileBert => &[
            "embedding_size",
            "trigram_input",
            "use_bottleneck",
            "intra_bottleneck_size",
            "true_hidden_size",
            "use_bottleneck_attention",
            "key_query_shared_bottleneck",
            "num_feedforward_networks",
            "normalization_type",
        ],
        _ => &[],
    }
}

fn bottleneck(fields: Fields<'_>) -> Result<Bottleneck, String> {
    for (field, only) in [
        ("trigram_input", json!(true)),
        ("use_bottleneck", json!(true)),
        ("key_query_shared_bottleneck", json!(true)),
        ("use_bottleneck_attention", json!(false)),
        ("normalization_type", json!("no_norm")),
    ] {
        fields.only(field, &only)?;
    }
    let size = fields.count_or("intra_bottleneck_size", Some(128))?;
    if fields.count_or("true_hidden_size", Some(size))? != size {
        return Err(format!("true_hidden_size differs from intra_bottleneck_size, which is {size}"));
    }
    Ok(Bottleneck { size, feed_forwards: fields.count_or("num_feedforward_networks", Some(4))? })
}

/// ALBERT-xlarge's published file says 16 heads, while the model was trained with 32 (one for each 64 of the
/// width, as the paper has it and as Google's own file says). No tensor's shape depends on it.
fn mend(fields: &mut Map<String, Value>) -> Vec<String> {
    let is = |field: &str, value: Value| fields.get(field) == Some(&value);
    if is("model_type", json!("albert"))
        && is("hidden_size", json!(2048))
        && is("num_attention_heads", json!(16))
    {
        fields.insert("num_attention_heads".into(), json!(32));
        return vec![
            "num_attention_heads is 16, but ALBERT-xlarge was trained with 32 heads, which are used; \
             with 16 its weights load and its answers are wrong"
                .into(),
        ];
    }
    Vec::new()
}
