//! Which tokenizer a folder of raw vocabulary files wants.

use serde_json::Value;
use tokenizers::Tokenizer as Inner;

use super::folder::Folder;
use super::special::Usual;
use super::{COMPLETE, byte_level, special, unigram, word_piece};
use crate::{DataError, PairLayout};

/// Families by their tokenizer: ELECTRA and MobileBERT have BERT's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Bert,
    Roberta,
    Albert,
    XlmRoberta,
}

/// What a folder's JSON files call their tokenizer.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Named {
    Known(Family),
    /// The name of a family that only its own `tokenizer.json` can describe.
    Unknown(String),
    Nothing,
}

impl Named {
    pub(super) fn known(self) -> Option<Family> {
        match self {
            Self::Known(family) => Some(family),
            Self::Unknown(_) | Self::Nothing => None,
        }
    }
}

impl Family {
    const ALL: [Self; 4] = [Self::Bert, Self::Roberta, Self::Albert, Self::XlmRoberta];

    /// The family by the names in the folder's JSON files. The tokenizer's class goes
    /// first: the multilingual MiniLM is a `bert` with XLM-R's tokenizer.
    pub(super) fn named(folder: &Folder) -> Named {
        let text = |file: &Value, key: &str| Some(file.get(key)?.as_str()?.to_owned());
        let classes = [&folder.settings, &folder.model].map(|file| text(file, "tokenizer_class"));
        // These classes hold any tokenizer.
        let telling = |class: &String| {
            !matches!(class.as_str(), "PreTrainedTokenizer" | "PreTrainedTokenizerFast" | "TokenizersBackend")
        };
        let class = classes.into_iter().flatten().find(telling);
        match (class, text(&folder.model, "model_type")) {
            (Some(class), _) => Self::of_class(&class).map_or(Named::Unknown(class), Named::Known),
            (None, Some(kind)) => Self::of_model_type(&kind).map_or(Named::Unknown(kind), Named::Known),
            (None, None) => Named::Nothing,
        }
    }

    /// The family whose raw files the folder has.
    pub(super) fn of_raw_files(folder: &Folder) -> Result<Self, DataError> {
        let complete = |family: &Self| family.files().iter().all(|file| folder.has(file));
        match Self::named(folder) {
            Named::Known(family) if complete(&family) => Ok(family),
            Named::Known(family) => Err(folder.error(format!(
                "found neither {COMPLETE} nor {}; fetch the model's tokenizer files into it",
                family.files().join(" with ")
            ))),
            Named::Unknown(name) => Err(folder.error(format!(
                "found no {COMPLETE}, and the tokenizer of {name:?} cannot be built from other files; \
                 save it with Hugging Face transformers, which writes {COMPLETE}"
            ))),
            Named::Nothing => Self::ALL.into_iter().find(complete).ok_or_else(|| {
                let sets = Self::ALL.map(|family| family.files().join(" with ")).join(", ");
                folder.error(format!("found neither {COMPLETE} nor one of {sets}"))
            }),
        }
    }

    /// Builds the tokenizer from the raw files, special tokens included: written out in a
    /// text, one is that token and not its letters.
    pub(super) fn build(self, folder: &Folder) -> Result<Inner, DataError> {
        let mut inner = match self {
            Self::Bert => word_piece::build(folder),
            Self::Roberta => byte_level::build(folder),
            Self::Albert => unigram::albert(folder),
            Self::XlmRoberta => unigram::xlm_roberta(folder),
        }?;
        special::add(folder, &mut inner, &self.special_tokens())?;
        Ok(inner)
    }

    /// How Hugging Face joins two texts in this family.
    pub(super) fn layout(self) -> PairLayout {
        match self {
            Self::Bert | Self::Albert => PairLayout::Single,
            Self::Roberta | Self::XlmRoberta => PairLayout::Double,
        }
    }

    fn of_class(class: &str) -> Option<Self> {
        match class.strip_suffix("Fast").unwrap_or(class) {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MobileBertTokenizer" => {
                Some(Self::Bert)
            }
            "RobertaTokenizer" => Some(Self::Roberta),
            "AlbertTokenizer" => Some(Self::Albert),
            "XLMRobertaTokenizer" => Some(Self::XlmRoberta),
            _ => None,
        }
    }

    fn of_model_type(kind: &str) -> Option<Self> {
        match kind {
            "bert" | "distilbert" | "electra" | "mobilebert" => Some(Self::Bert),
            "roberta" => Some(Self::Roberta),
            "albert" => Some(Self::Albert),
            "xlm-roberta" => Some(Self::XlmRoberta),
            _ => None,
        }
    }

    /// The raw files; all of them are needed.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &[word_piece::WORDS],
            Self::Roberta => &[byte_level::IDS, byte_level::MERGES],
            Self::Albert => &[unigram::ALBERT],
            Self::XlmRoberta => &[unigram::XLM_ROBERTA],
        }
    }

    /// Special tokens by role, for folders that name none.
    fn special_tokens(self) -> Vec<Usual> {
        let usual = |role, name| Usual { role, name, takes_space: false };
        let (borders, pad, unknown, mask) = match self {
            Self::Bert => (["[CLS]", "[SEP]"], "[PAD]", "[UNK]", "[MASK]"),
            Self::Albert => (["[CLS]", "[SEP]"], "<pad>", "<unk>", "[MASK]"),
            Self::Roberta | Self::XlmRoberta => (["<s>", "</s>"], "<pad>", "<unk>", "<mask>"),
        };
        let mut tokens = vec![
            usual("cls_token", borders[0]),
            usual("sep_token", borders[1]),
            usual("pad_token", pad),
            usual("unk_token", unknown),
            // So that a masked word is predicted with the space that belongs to it.
            Usual { takes_space: self != Self::Bert, ..usual("mask_token", mask) },
        ];
        if self != Self::Bert {
            tokens.extend([usual("bos_token", borders[0]), usual("eos_token", borders[1])]);
        }
        tokens
    }
}
