//! Questions as token sequences: `[CLS] question [SEP] window of the context [SEP]`,
//! or with two separators between ([`PairLayout`]).

use crate::gold::Offset;
use crate::squad::Dataset;
use crate::{DataError, Tokenizer};

mod build;
mod cache;
mod columns;
mod cut;
mod file;
mod made_up;
mod settings;

pub use cache::{FeatureCache, Opened, Origin};
use columns::Columns;
pub use settings::{FeatureSettings, Purpose};

/// What building saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureCounts {
    /// Questions in the data set.
    pub questions: usize,
    /// Questions that have features.
    pub kept: usize,
    /// Questions whose gold tokens do not spell the answer (training, [`Step`](crate::Window::Step)).
    pub mismatched: usize,
    /// Those of them that were left out because the answer is a bare number.
    pub unreliable: usize,
    /// Features, that is windows.
    pub chunks: usize,
    /// Windows that do not hold the whole gold answer (training).
    pub impossible_chunks: usize,
}

/// All features of a data set, as [`columns`] of numbers.
#[derive(Debug)]
pub struct Features {
    columns: Columns,
    /// Where every feature starts in the column of ids, then the end.
    starts: Vec<usize>,
    /// Where every context starts in the column of offsets, then the end.
    context_starts: Vec<usize>,
    counts: FeatureCounts,
    digest: [u8; 32],
}

/// One window of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature<'a> {
    /// Index of the question in [`Dataset::questions`].
    pub question: usize,
    /// `[CLS] question [SEP] context window [SEP]`, unpadded; two separators between
    /// under [`PairLayout::Double`].
    pub input_ids: &'a [i32],
    /// Position of the first context token. Token types are 0 before it and 1 from it on.
    pub context_offset: usize,
    /// The window's first token, counted in the whole context.
    pub chunk_start: usize,
    /// Context tokens in the window.
    pub chunk_length: usize,
    /// Gold start as a position in the sequence; 0, the classifier token, when impossible.
    pub start: usize,
    /// Gold end (inclusive) as a position in the sequence; 0 when impossible.
    pub end: usize,
    /// Training: the window does not hold the whole gold answer. Evaluation: always false.
    pub is_impossible: bool,
}

impl Features {
    /// Tokenizes and cuts every question, in parallel on the current rayon pool.
    ///
    /// Each distinct context is tokenized once. Features come in the order of
    /// questions, then of windows, whatever the number of threads.
    ///
    /// # Errors
    /// [`DataError::Setting`] as [`FeatureSettings::validate`]; [`DataError::NoRoom`]
    /// for the first question whose context cannot be covered; [`DataError::Encode`].
    pub fn build(
        dataset: &Dataset,
        tokenizer: &Tokenizer,
        settings: &FeatureSettings,
        purpose: Purpose,
    ) -> Result<Self, DataError> {
        build::build(dataset, tokenizer, settings, purpose)
    }

    /// Features over columns that fit together.
    fn over(columns: Columns, counts: FeatureCounts, digest: [u8; 32]) -> Self {
        let starts = running(columns.rows.iter().map(|row| row.length));
        let context_starts = running(columns.contexts.iter().copied());
        Self { columns, starts, context_starts, counts, digest }
    }

    /// Number of features.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.rows.len()
    }

    /// Whether there is no feature at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.rows.is_empty()
    }

    /// Tokens of feature `index`, special ones included.
    ///
    /// # Panics
    /// Where `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        self.starts[index + 1] - self.starts[index]
    }

    /// The lengths of all features, as the sampler wants them.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|i| self.length(i)).collect()
    }

    /// Feature `index`.
    ///
    /// # Panics
    /// Where `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn get(&self, index: usize) -> Feature<'_> {
        let row = self.columns.rows[index];
        Feature {
            question: row.question as usize,
            input_ids: &self.columns.ids[self.starts[index]..self.starts[index + 1]],
            context_offset: row.context_offset as usize,
            chunk_start: row.chunk_start as usize,
            chunk_length: row.chunk_length as usize,
            start: row.start as usize,
            end: row.end as usize,
            is_impossible: row.is_impossible != 0,
        }
    }

    /// Number of questions in the data set (features may exist for fewer).
    #[must_use]
    pub fn questions(&self) -> usize {
        self.counts.questions
    }

    /// What building saw.
    #[must_use]
    pub fn counts(&self) -> FeatureCounts {
        self.counts
    }

    /// SHA-256 over everything that training sees: ids, segments, gold positions, order.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Number of tokens of a question's whole context.
    ///
    /// # Panics
    /// Where `question` is not below [`questions`](Self::questions).
    #[must_use]
    pub fn context_tokens(&self, question: usize) -> usize {
        self.columns.contexts[self.columns.questions[question] as usize] as usize
    }

    /// Where a token of a question's context stands in it, in code points.
    ///
    /// # Panics
    /// Where `question` is not below [`questions`](Self::questions), or `token` is beyond the last context.
    #[must_use]
    pub fn offset(&self, question: usize, token: usize) -> Offset {
        let [from, to] =
            self.columns.offsets[self.context_starts[self.columns.questions[question] as usize] + token];
        (from, to)
    }
}

/// Where things of these lengths start when one lies behind the other, then the end.
fn running(lengths: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut at = 0;
    let ends = lengths.map(|length| {
        at += length as usize;
        at
    });
    std::iter::once(0).chain(ends).collect()
}
