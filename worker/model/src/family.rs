//! The families of encoders, and what only their files differ in.

/// An architecture, as `model_type` of `config.json` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// BERT (Devlin et al., 2019), also whole-word-masking and MiniLM.
    Bert,
    /// RoBERTa (Liu et al., 2019): no segments, positions counted from the padding token's number.
    Roberta,
    /// XLM-R (Conneau et al., 2020): RoBERTa with another vocabulary.
    XlmRoberta,
    /// ELECTRA's discriminator (Clark et al., 2020): embeddings may be narrower than the encoder.
    Electra,
    /// ALBERT (Lan et al., 2020): narrow embeddings, one layer applied again and again.
    Albert,
    /// MobileBERT (Sun et al., 2020): bottlenecks in every layer, no statistics in its norms.
    MobileBert,
}

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

impl Family {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Bert, Self::Roberta, Self::XlmRoberta, Self::Electra, Self::Albert, Self::MobileBert];

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::Electra => "electra",
            Self::Albert => "albert",
            Self::MobileBert => "mobilebert",
        }
    }

    /// What files of whole networks put before the encoder's names.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta | Self::XlmRoberta => "roberta.",
            Self::Electra => "electra.",
            Self::Albert => "albert.",
            Self::MobileBert => "mobilebert.",
        }
    }

    /// Hugging Face's class of this encoder with the span head.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Self::Bert => "BertForQuestionAnswering",
            Self::Roberta => "RobertaForQuestionAnswering",
            Self::XlmRoberta => "XLMRobertaForQuestionAnswering",
            Self::Electra => "ElectraForQuestionAnswering",
            Self::Albert => "AlbertForQuestionAnswering",
            Self::MobileBert => "MobileBertForQuestionAnswering",
        }
    }

    /// Whether question and context differ by a segment embedding.
    pub(crate) fn has_segments(self) -> bool {
        !self.counts_from_padding()
    }

    /// Whether the first token's position is the padding token's number plus 1, as in fairseq.
    pub(crate) fn counts_from_padding(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta)
    }

    /// Whether one layer is applied at every depth.
    pub(crate) fn shares_layers(self) -> bool {
        self == Self::Albert
    }

    /// The linear map between embeddings and encoder, where the family has one.
    pub(crate) fn projection(self) -> Option<&'static str> {
        match self {
            Self::Electra => Some("embeddings_project"),
            Self::Albert => Some("encoder.embedding_hidden_mapping_in"),
            _ => None,
        }
    }

    /// Prefix of layer `index`'s names.
    pub(crate) fn layer_prefix(self, index: i64) -> String {
        match self {
            Self::Albert => "encoder.albert_layer_groups.0.albert_layers.0".into(),
            _ => format!("encoder.layer.{index}"),
        }
    }

    /// Names inside a layer; MobileBERT's layer has its own file.
    pub(crate) fn layer_names(self) -> &'static LayerNames {
        match self {
            Self::Albert => &ALBERT_LAYER,
            _ => &BERT_LAYER,
        }
    }
}
