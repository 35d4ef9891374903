//! Questions as token sequences: `[CLS] question [SEP] window of the context [SEP]`,
//! or with two separators between ([`PairLayout`]).

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::gold::Offset;
use crate::squad::Dataset;
use crate::tokenizer::Encoded;
use crate::{DataError, PairLayout, Tokenizer};

mod cut;
mod settings;

use cut::{Cut, Cutter};
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

/// All features of a data set: one arena of ids, columns for the rest.
#[derive(Debug)]
pub struct Features {
    ids: Vec<i32>,
    /// Where every feature starts in `ids`, then the end.
    starts: Vec<usize>,
    rows: Vec<Row>,
    /// Token offsets of every distinct context, and which one a question uses.
    contexts: Vec<Vec<Offset>>,
    context_of: Vec<u32>,
    counts: FeatureCounts,
    digest: [u8; 32],
}

/// One window's numbers; 32 bits suffice since `validate`d sequences and data sets are far smaller.
#[derive(Debug, Clone, Copy)]
struct Row {
    question: u32,
    context_offset: u32,
    chunk_start: u32,
    chunk_length: u32,
    start: u32,
    end: u32,
    is_impossible: bool,
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
        settings.validate()?;
        let (texts, context_of) = distinct_contexts(dataset);
        let contexts: Vec<Encoded> = in_order(texts.par_iter().map(|text| tokenizer.encode(text)))?;
        let cutter = Cutter { tokenizer, settings, purpose };
        let cut = in_order(
            dataset
                .questions
                .par_iter()
                .zip(&context_of)
                .map(|(question, context)| cutter.question(question, &contexts[*context as usize])),
        )?;
        let mut features = Self {
            ids: Vec::new(),
            starts: vec![0],
            rows: Vec::new(),
            contexts: Vec::new(),
            context_of,
            counts: FeatureCounts { questions: dataset.questions.len(), ..FeatureCounts::default() },
            digest: [0; 32],
        };
        let joints = Joints::new(tokenizer, settings.layout);
        for (index, cut) in cut.iter().enumerate() {
            features.append(index, cut, &contexts, &joints);
        }
        features.contexts = contexts.into_iter().map(|c| c.offsets).collect();
        features.digest = features.hash();
        Ok(features)
    }

    fn append(&mut self, question: usize, cut: &Cut, contexts: &[Encoded], joints: &Joints) {
        self.counts.mismatched += usize::from(cut.mismatched);
        self.counts.unreliable += usize::from(cut.unreliable);
        self.counts.kept += usize::from(!cut.windows.is_empty());
        let context = &contexts[self.context_of[question] as usize].ids;
        for window in &cut.windows {
            let span = window.span;
            self.ids.push(joints.first);
            self.ids.extend_from_slice(&cut.query);
            self.ids.extend_from_slice(&joints.between);
            self.ids.extend_from_slice(&context[span.start..span.start + span.length]);
            self.ids.push(joints.last);
            self.starts.push(self.ids.len());
            let context_offset = 1 + cut.query.len() + joints.between.len();
            // From a position in the context to one in the sequence.
            let place = |token: usize| small(token - span.start + context_offset);
            self.rows.push(Row {
                question: small(question),
                context_offset: small(context_offset),
                chunk_start: small(span.start),
                chunk_length: small(span.length),
                start: window.gold.map_or(0, |(first, _)| place(first)),
                end: window.gold.map_or(0, |(_, last)| place(last)),
                is_impossible: window.is_impossible,
            });
            self.counts.chunks += 1;
            self.counts.impossible_chunks += usize::from(window.is_impossible);
        }
    }

    /// Number of features.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no feature at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
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
        let row = &self.rows[index];
        Feature {
            question: row.question as usize,
            input_ids: &self.ids[self.starts[index]..self.starts[index + 1]],
            context_offset: row.context_offset as usize,
            chunk_start: row.chunk_start as usize,
            chunk_length: row.chunk_length as usize,
            start: row.start as usize,
            end: row.end as usize,
            is_impossible: row.is_impossible,
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

    /// Code-point offsets of a question's context tokens.
    ///
    /// # Panics
    /// Where `question` is not below [`questions`](Self::questions).
    #[must_use]
    pub fn offsets(&self, question: usize) -> &[Offset] {
        &self.contexts[self.context_of[question] as usize]
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"squad-data features 1");
        for (index, row) in self.rows.iter().enumerate() {
            let feature = self.get(index);
            let numbers =
                [row.question, small(feature.input_ids.len()), row.context_offset, row.start, row.end];
            for number in numbers {
                hash.update(number.to_le_bytes());
            }
            hash.update([u8::from(row.is_impossible)]);
            for id in feature.input_ids {
                hash.update(id.to_le_bytes());
            }
        }
        hash.finalize().into()
    }
}

/// The special tokens before, between and behind question and context.
struct Joints {
    first: i32,
    between: Vec<i32>,
    last: i32,
}

impl Joints {
    fn new(tokenizer: &Tokenizer, layout: PairLayout) -> Self {
        let between = vec![tokenizer.sep(); layout.separators()];
        Self { first: tokenizer.cls(), between, last: tokenizer.sep() }
    }
}

/// Positions, lengths and question numbers: bounded by the memory that holds their tokens.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Parallel work whose first error, in order, is the one reported.
fn in_order<T: Send>(
    work: impl IndexedParallelIterator<Item = Result<T, DataError>>,
) -> Result<Vec<T>, DataError> {
    let mut results = Vec::new();
    work.collect_into_vec(&mut results);
    results.into_iter().collect()
}

/// Every distinct context once, and for each question which one is its own.
fn distinct_contexts(dataset: &Dataset) -> (Vec<Arc<str>>, Vec<u32>) {
    let mut known: HashMap<&str, u32> = HashMap::new();
    let mut texts = Vec::new();
    let of = dataset.questions.iter().map(|question| {
        *known.entry(&question.context).or_insert_with(|| {
            texts.push(Arc::clone(&question.context));
            small(texts.len() - 1)
        })
    });
    let of = of.collect();
    (texts, of)
}
