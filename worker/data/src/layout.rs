//! Where the special tokens of a sequence of question and context stand.

use serde::{Deserialize, Serialize};

/// How question and context are joined into one sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairLayout {
    /// `[CLS] question [SEP] context [SEP]`: BERT, ELECTRA, MobileBERT, ALBERT, and the replaced
    /// program whatever the family.
    Single,
    /// `<s> question </s></s> context </s>`: RoBERTa and XLM-R, as Hugging Face has them.
    Double,
}

impl PairLayout {
    /// Separators between the question and the context.
    #[must_use]
    pub fn separators(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Double => 2,
        }
    }

    /// Special tokens of a whole sequence: the classifier's, those between, and the last separator.
    #[must_use]
    pub fn special_tokens(self) -> usize {
        1 + self.separators() + 1
    }
}
