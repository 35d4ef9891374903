//! Padding chosen features into one batch, and dealing evaluation to ranks.

use std::cmp::Reverse;
use std::ops::Range;

use crate::features::Features;

/// Features padded to one width, row by row, in the layout that tensors are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of features.
    pub rows: usize,
    /// Tokens per row after padding.
    pub width: usize,
    /// Vocabulary ids, `rows * width`; padding is the tokenizer's pad id.
    pub input_ids: Vec<i64>,
    /// 0 before the context, from there on 1; 0 for padding. Families without segments pay no heed. `rows * width`.
    pub token_type_ids: Vec<i64>,
    /// Real tokens of every row.
    pub lengths: Vec<i64>,
    /// Whether a position may be an answer's border: the classifier token (it stands
    /// for "no answer") and context tokens. `rows * width`.
    pub allowed: Vec<bool>,
    /// Gold start position in every row; 0 where the window holds no answer.
    pub starts: Vec<i64>,
    /// Gold end position in every row (inclusive); 0 where the window holds no answer.
    pub ends: Vec<i64>,
    /// 1 where the window holds no answer, else 0.
    pub impossible: Vec<i64>,
    /// The feature that every row came from.
    pub features: Vec<usize>,
}

impl Batch {
    /// Tokens without padding.
    #[must_use]
    pub fn real_tokens(&self) -> usize {
        self.lengths.iter().map(|l| *l as usize).sum()
    }

    /// Some of the rows, as wide as all.
    ///
    /// # Panics
    /// Where there are no such rows.
    #[must_use]
    pub fn part(&self, rows: Range<usize>) -> Self {
        let tokens = rows.start * self.width..rows.end * self.width;
        Self {
            rows: rows.len(),
            width: self.width,
            input_ids: self.input_ids[tokens.clone()].to_vec(),
            token_type_ids: self.token_type_ids[tokens.clone()].to_vec(),
            lengths: self.lengths[rows.clone()].to_vec(),
            allowed: self.allowed[tokens].to_vec(),
            starts: self.starts[rows.clone()].to_vec(),
            ends: self.ends[rows.clone()].to_vec(),
            impossible: self.impossible[rows.clone()].to_vec(),
            features: self.features[rows].to_vec(),
        }
    }
}

/// Pads the features of `indices` to the longest of them, rounded up to a multiple
/// of `pad_to_multiple` (0 and 1: no rounding).
///
/// # Panics
/// Where an index is not below [`Features::len`].
#[must_use]
pub fn collate(features: &Features, indices: &[usize], pad_id: i32, pad_to_multiple: usize) -> Batch {
    let rows = indices.len();
    let longest = indices.iter().map(|i| features.length(*i)).max().unwrap_or(0);
    let width = longest.next_multiple_of(pad_to_multiple.max(1));
    let mut batch = Batch {
        rows,
        width,
        input_ids: vec![i64::from(pad_id); rows * width],
        token_type_ids: vec![0; rows * width],
        lengths: Vec::with_capacity(rows),
        allowed: vec![false; rows * width],
        starts: Vec::with_capacity(rows),
        ends: Vec::with_capacity(rows),
        impossible: Vec::with_capacity(rows),
        features: indices.to_vec(),
    };
    for (row, index) in indices.iter().enumerate() {
        let feature = features.get(*index);
        let (at, length) = (row * width, feature.input_ids.len());
        for (to, id) in batch.input_ids[at..at + length].iter_mut().zip(feature.input_ids) {
            *to = i64::from(*id);
        }
        batch.token_type_ids[at + feature.context_offset..at + length].fill(1);
        batch.allowed[at] = true;
        let context = at + feature.context_offset;
        batch.allowed[context..context + feature.chunk_length].fill(true);
        batch.lengths.push(length as i64);
        batch.starts.push(feature.start as i64);
        batch.ends.push(feature.end as i64);
        batch.impossible.push(i64::from(feature.is_impossible));
    }
    batch
}

/// All features in batches of at most `batch_size`, longest first, so that a batch's rows are alike.
#[must_use]
pub fn evaluation_batches(features: &Features, batch_size: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..features.len()).collect();
    evaluation_batches_of(features, &all, batch_size)
}

/// [`evaluation_batches`] of some features, such as one rank's share.
#[must_use]
pub fn evaluation_batches_of(features: &Features, indices: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    let mut order = indices.to_vec();
    order.sort_by_key(|i| Reverse(features.length(*i)));
    order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

/// The features that `rank` of `world` ranks evaluates, ascending.
///
/// All windows of a question go to one rank, which can therefore answer it alone;
/// questions are dealt, heaviest first, to the rank with the fewest tokens so far.
/// Every rank computes the same deal.
#[must_use]
pub fn share_of_questions(features: &Features, rank: usize, world: usize) -> Vec<usize> {
    if rank >= world {
        return Vec::new();
    }
    // Windows of one question stand together: (tokens, first feature, feature after the last).
    let mut groups: Vec<(usize, usize, usize)> = Vec::new();
    let mut last = None;
    for index in 0..features.len() {
        let question = features.get(index).question;
        let tokens = features.length(index);
        match groups.last_mut() {
            Some(group) if last == Some(question) => {
                group.0 += tokens;
                group.2 = index + 1;
            }
            _ => groups.push((tokens, index, index + 1)),
        }
        last = Some(question);
    }
    groups.sort_by_key(|(tokens, first, _)| (Reverse(*tokens), *first));
    let mut loads = vec![0; world];
    let mut mine = Vec::new();
    for (tokens, first, end) in groups {
        let lightest = (0..world).min_by_key(|r| loads[*r]).unwrap_or(0);
        loads[lightest] += tokens;
        if lightest == rank {
            mine.extend(first..end);
        }
    }
    mine.sort_unstable();
    mine
}
