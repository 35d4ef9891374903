//! From texts to columns.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::columns::{Column, Columns, Row};
use super::cut::{Cut, Cutter};
use super::{FeatureCounts, FeatureSettings, Features, Purpose};
use crate::squad::Dataset;
use crate::tokenizer::Encoded;
use crate::{DataError, PairLayout, Tokenizer};

/// Questions that are cut at once: enough for every thread, few enough to weigh little beside the columns.
const AT_ONCE: usize = 4096;

pub(super) fn build(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    settings: &FeatureSettings,
    purpose: Purpose,
) -> Result<Features, DataError> {
    settings.validate()?;
    let (texts, context_of) = distinct_contexts(dataset);
    let contexts: Vec<Encoded> = in_order(texts.par_iter().map(|text| tokenizer.encode(text)))?;
    let cutter = Cutter { tokenizer, settings, purpose };
    let joints = Joints::new(tokenizer, settings.layout);
    let mut builder = Builder::new(dataset.questions.len());
    for (questions, of) in dataset.questions.chunks(AT_ONCE).zip(context_of.chunks(AT_ONCE)) {
        let context = |index: &u32| &contexts[*index as usize];
        let cut =
            in_order(questions.par_iter().zip(of).map(|(q, index)| cutter.question(q, context(index))))?;
        for (cut, index) in cut.iter().zip(of) {
            builder.append(cut, &context(index).ids, &joints);
        }
    }
    Ok(builder.finish(context_of, contexts))
}

/// The columns that grow question by question.
struct Builder {
    rows: Vec<Row>,
    ids: Vec<i32>,
    counts: FeatureCounts,
    /// Questions so far.
    questions: usize,
}

impl Builder {
    fn new(questions: usize) -> Self {
        let counts = FeatureCounts { questions, ..FeatureCounts::default() };
        Self { rows: Vec::with_capacity(questions), ids: Vec::new(), counts, questions: 0 }
    }

    fn append(&mut self, cut: &Cut, context: &[i32], joints: &Joints) {
        self.counts.mismatched += usize::from(cut.mismatched);
        self.counts.unreliable += usize::from(cut.unreliable);
        self.counts.kept += usize::from(!cut.windows.is_empty());
        for window in &cut.windows {
            let span = window.span;
            let from = self.ids.len();
            self.ids.push(joints.first);
            self.ids.extend_from_slice(&cut.query);
            self.ids.extend_from_slice(&joints.between);
            self.ids.extend_from_slice(&context[span.start..span.start + span.length]);
            self.ids.push(joints.last);
            let context_offset = 1 + cut.query.len() + joints.between.len();
            // From a position in the context to one in the sequence.
            let place = |token: usize| small(token - span.start + context_offset);
            self.rows.push(Row {
                question: small(self.questions),
                length: small(self.ids.len() - from),
                context_offset: small(context_offset),
                chunk_start: small(span.start),
                chunk_length: small(span.length),
                start: window.gold.map_or(0, |(first, _)| place(first)),
                end: window.gold.map_or(0, |(_, last)| place(last)),
                is_impossible: u32::from(window.is_impossible),
            });
            self.counts.chunks += 1;
            self.counts.impossible_chunks += usize::from(window.is_impossible);
        }
        self.questions += 1;
    }

    fn finish(self, context_of: Vec<u32>, contexts: Vec<Encoded>) -> Features {
        let lengths = contexts.iter().map(|context| small(context.ids.len())).collect();
        let offsets = contexts.iter().flat_map(|c| c.offsets.iter().map(|(from, to)| [*from, *to])).collect();
        let digest = digest(&self.rows, &self.ids);
        let columns = Columns {
            rows: Column::Owned(self.rows),
            ids: Column::Owned(self.ids),
            questions: Column::Owned(context_of),
            contexts: Column::Owned(lengths),
            offsets: Column::Owned(offsets),
        };
        Features::over(columns, self.counts, digest)
    }
}

/// SHA-256 over everything that training sees.
pub(super) fn digest(rows: &[Row], ids: &[i32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"squad-data features 2");
    hash.update((rows.len() as u64).to_le_bytes());
    hash.update(bytemuck::cast_slice(rows));
    hash.update(bytemuck::cast_slice(ids));
    hash.finalize().into()
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
