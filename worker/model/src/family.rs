//! What families of encoders differ in beyond the numbers of their configurations.

use squad_weights::Family;

/// Names of one standard layer's parts below the layer's own prefix.
pub(crate) struct LayerNames {
    /// Before query, key and value.
    pub(crate) attention: &'static str,
    pub(crate) attention_out: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) out_norm: &'static str,
}

const BERT_LAYER: LayerNames = LayerNames {
    attention: "attention.self",
    attention_out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    out_norm: "output.LayerNorm",
};

const ALBERT_LAYER: LayerNames = LayerNames {
    attention: "attention",
    attention_out: "attention.dense",
    attention_norm: "attention.LayerNorm",
    up: "ffn",
    down: "ffn_output",
    out_norm: "full_layer_layer_norm",
};

/// What a family's encoder is made of.
pub(crate) trait Traits {
    /// Whether question and context differ by a segment embedding.
    fn has_segments(self) -> bool;
    /// Whether one layer is applied at every depth.
    fn shares_layers(self) -> bool;
    /// The linear map between embeddings and encoder, where the family has one.
    fn projection(self) -> Option<&'static str>;
    /// Prefix of layer `index`'s names.
    fn layer_prefix(self, index: i64) -> String;
    /// Names inside a layer; MobileBERT's layer has its own file.
    fn layer_names(self) -> &'static LayerNames;
}

impl Traits for Family {
    fn has_segments(self) -> bool {
        !self.is_roberta()
    }

    fn shares_layers(self) -> bool {
        self == Self::Albert
    }

    fn projection(self) -> Option<&'static str> {
        match self {
            Self::Electra => Some("embeddings_project"),
            Self::Albert => Some("encoder.embedding_hidden_mapping_in"),
            _ => None,
        }
    }

    fn layer_prefix(self, index: i64) -> String {
        match self {
            Self::Albert => "encoder.albert_layer_groups.0.albert_layers.0".into(),
            _ => format!("encoder.layer.{index}"),
        }
    }

    fn layer_names(self) -> &'static LayerNames {
        match self {
            Self::Albert => &ALBERT_LAYER,
            _ => &BERT_LAYER,
        }
    }
}
