//! Strict reading of `config.json`'s fields.

use serde_json::{Map, Value};

use super::Activation;

/// Fields that change nothing that a question-answering encoder computes: names, tokens, settings of other heads,
/// of text generation and of the program that wrote the file.
const PASSIVE: &[&str] = &[
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_activation",
    "classifier_dropout",
    "classifier_dropout_prob",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "directionality",
    "diversity_penalty",
    "do_sample",
    "down_scale_factor",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gap_size",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "language",
    "length_penalty",
    "max_length",
    "min_length",
    "model_name",
    "model_type",
    "name",
    "net_structure_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_memory_blocks",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "position_biased_input",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "squadron",
    "summary_activation",
    "summary_first_dropout",
    "summary_last_dropout",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "_name_or_path",
    "_attn_implementation_autoset",
    "_num_labels",
    "cls_token_id",
    "eos_token_ids",
    "is_composition",
    "layers_to_keep",
    "mask_token_id",
    "summary_proj_to_labels",
    "unk_token_id",
    "use_return_dict",
    "vocab_size_or_config_json_file",
    "xla_device",
];

/// Fields that every family has.
const COMMON: &[&str] = &[
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_act",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "pad_token_id",
    "position_embedding_type",
    "is_decoder",
    "add_cross_attention",
    "pruned_heads",
];

/// The object of a `config.json`. Every answer's error is a sentence that names the field.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl Fields<'_> {
    /// Refuses fields that are neither known to all families, nor to this one (`own`), nor without effect.
    pub(super) fn refuse_unknown(self, own: &[&str]) -> Result<(), String> {
        let known = |name: &str| [COMMON, PASSIVE, own].iter().any(|list| list.contains(&name));
        for (name, value) in self.0 {
            let off = matches!(value, Value::Null | Value::Bool(false));
            if !known(name) && !off {
                return Err(format!(
                    "{name} is {value}, a field that is not known here and might change what the model computes; \
                     if it does not, remove it from the file"
                ));
            }
        }
        Ok(())
    }

    /// A whole number above 0.
    pub(super) fn count(self, field: &str) -> Result<i64, String> {
        self.count_or(field, None)
    }

    /// The same, with what a missing field means.
    pub(super) fn count_or(self, field: &str, default: Option<i64>) -> Result<i64, String> {
        match (self.0.get(field), default) {
            (None | Some(Value::Null), Some(default)) => Ok(default),
            (None, None) => Err(format!("{field} is missing")),
            (Some(value), _) => value
                .as_i64()
                .filter(|n| *n > 0)
                .ok_or_else(|| format!("{field} is {value}; it must be a positive whole number")),
        }
    }

    /// A number, 0 or more, with what a missing field means.
    pub(super) fn number(self, field: &str, default: Option<f64>) -> Result<f64, String> {
        match self.0.get(field) {
            None | Some(Value::Null) => default.ok_or_else(|| format!("{field} is missing")),
            Some(value) => value
                .as_f64()
                .filter(|n| *n >= 0.0)
                .ok_or_else(|| format!("{field} is {value}; it must be a number, 0 or more")),
        }
    }

    /// The padding token, `None` where the field is null; a missing field means `default`.
    pub(super) fn pad(self, default: i64, vocabulary: i64) -> Result<Option<i64>, String> {
        match self.0.get("pad_token_id") {
            None => Ok(Some(default)),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_i64().filter(|id| (0..vocabulary).contains(id)) {
                Some(id) => Ok(Some(id)),
                None => Err(format!("pad_token_id is {value}, outside the vocabulary of {vocabulary}")),
            },
        }
    }

    /// Refuses a field whose value is not `expected`; a missing field passes.
    pub(super) fn only(self, field: &str, expected: &Value) -> Result<(), String> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if value == expected => Ok(()),
            Some(other) => Err(format!("{field} is {other}; only {expected} is known here")),
        }
    }

    /// Refuses what makes another kind of network of any family.
    pub(super) fn refuse_decoders(self) -> Result<(), String> {
        self.only("position_embedding_type", &Value::from("absolute"))?;
        for switch in ["is_decoder", "add_cross_attention"] {
            if self.0.get(switch).and_then(Value::as_bool) == Some(true) {
                return Err(format!("{switch} is true; only encoders can be fine-tuned here"));
            }
        }
        match self.0.get("pruned_heads").and_then(Value::as_object) {
            Some(heads) if !heads.is_empty() => {
                Err("pruned_heads is not empty; models with heads cut out cannot be read".into())
            }
            _ => Ok(()),
        }
    }

    /// `hidden_act`.
    pub(super) fn activation(self) -> Result<Activation, String> {
        match self.0.get("hidden_act").and_then(Value::as_str) {
            Some("gelu" | "gelu_python") => Ok(Activation::GeluErf),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("relu") => Ok(Activation::Relu),
            Some(other) => Err(format!("hidden_act is {other}; gelu, gelu_new and relu are known here")),
            None => Err("hidden_act is missing".into()),
        }
    }
}
