//! The architectures, and how their parameters' names tell them apart.

use crate::Tensors;

/// An architecture, as `model_type` of `config.json` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT (Devlin et al., 2019), also whole-word-masking and MiniLM.
    Bert,
    /// RoBERTa (Liu et al., 2019): no segments, positions counted from the padding token's number.
    Roberta,
    /// XLM-R (Conneau et al., 2020), which is RoBERTa with a vocabulary of many languages.
    XlmRoberta,
    /// ELECTRA's discriminator (Clark et al., 2020): embeddings may be narrower than the encoder.
    Electra,
    /// ALBERT (Lan et al., 2020): narrow embeddings, one layer applied again and again.
    Albert,
    /// MobileBERT (Sun et al., 2020): bottlenecks in every layer, no statistics in its norms.
    MobileBert,
}

/// Word pieces beyond which a RoBERTa is XLM-R: they have 50 265 and 250 002.
const MANY_LANGUAGES: i64 = 100_000;

impl Family {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Bert, Self::Roberta, Self::XlmRoberta, Self::Electra, Self::Albert, Self::MobileBert];

    /// The family of parameters by the replaced program's names; `None` when they are of none.
    pub fn of(tensors: &Tensors) -> Option<Self> {
        let any = |part: &str| tensors.keys().any(|name| name.contains(part));
        if any("encoder.all_encoder_groups.") {
            Some(Self::Albert)
        } else if any("encoder.all_encoder_layers.") {
            Some(Self::Electra)
        } else if any(".stacked_ffn.") {
            Some(Self::MobileBert)
        } else if !any("encoder.all_layers.") {
            None
        } else if any("token_pos_embed.") {
            Some(Self::Bert)
        } else {
            let words = tensors.iter().find(|(name, _)| name.ends_with("word_embed.weight"));
            let many =
                words.and_then(|(_, (shape, _))| shape.first()).is_some_and(|rows| *rows > MANY_LANGUAGES);
            Some(if many { Self::XlmRoberta } else { Self::Roberta })
        }
    }

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

    /// What Hugging Face puts before the encoder's names where a head stands beside it.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta | Self::XlmRoberta => "roberta.",
            Self::Electra => "electra.",
            Self::Albert => "albert.",
            Self::MobileBert => "mobilebert.",
        }
    }

    /// What Hugging Face's classes of this family begin with.
    pub fn class(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Roberta => "Roberta",
            Self::XlmRoberta => "XLMRoberta",
            Self::Electra => "Electra",
            Self::Albert => "Albert",
            Self::MobileBert => "MobileBert",
        }
    }

    /// Whether positions are counted from the padding token's number plus 1, and there are no segments.
    pub fn is_roberta(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta)
    }
}
