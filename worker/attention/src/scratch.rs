//! Room for one task's blocks, and what goes in and out.
#![allow(unsafe_code, reason = "several threads write to their parts of one tensor")]

use crate::field::{Shape, Source, Target};
use crate::product::VECTORS;

/// Queries that are worked on at a time: their scores stay in the second-level cache.
pub(crate) const BLOCK: usize = 48;
/// Numbers of the longest vector.
const LONGEST: usize = 16;

/// Widths of blocks: whole tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widths {
    /// Where columns are tokens.
    pub(crate) tokens: usize,
    /// Where they are a head's numbers.
    pub(crate) size: usize,
}

impl Widths {
    /// For vectors of `lanes` numbers.
    pub(crate) fn new(shape: Shape, lanes: usize) -> Self {
        Self {
            tokens: shape.tokens.next_multiple_of(VECTORS * lanes),
            size: shape.size.next_multiple_of(VECTORS * lanes),
        }
    }
}

/// Numbers that a forward pass needs room for, for each thread.
pub(crate) fn forward_len(shape: Shape) -> usize {
    let widths = Widths::new(shape, LONGEST);
    widths.tokens * (shape.size + BLOCK + 1) + widths.size * (shape.tokens + BLOCK) + shape.size * BLOCK
}

/// The same for a backward pass.
pub(crate) fn backward_len(shape: Shape) -> usize {
    let widths = Widths::new(shape, LONGEST);
    widths.tokens * (4 * shape.size + 2 * BLOCK + 1)
        + widths.size * (shape.tokens + BLOCK)
        + 2 * shape.size * BLOCK
}

/// Takes blocks off a slice.
pub(crate) struct Room<'a>(pub(crate) &'a mut [f32]);

impl<'a> Room<'a> {
    /// `len` numbers, all zero.
    pub(crate) fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        taken.fill(0.0);
        taken
    }
}

/// Copies one head of one row, tokens `first..first + count`, into rows of `width` numbers, times `factor`.
pub(crate) fn copy_rows(
    from: &Source<'_, f32>,
    [row, head]: [usize; 2],
    [first, count]: [usize; 2],
    size: usize,
    (into, width, factor): (&mut [f32], usize, f32),
) {
    for (token, into) in into.chunks_exact_mut(width).take(count).enumerate() {
        for (into, value) in into.iter_mut().zip(from.get(row, first + token, head, size)) {
            *into = value * factor;
        }
    }
}

/// The same transposed: `into` has `size` rows of `width` numbers, one for each token.
pub(crate) fn copy_columns(
    from: &Source<'_, f32>,
    [row, head]: [usize; 2],
    count: usize,
    size: usize,
    (into, width): (&mut [f32], usize),
) {
    // Tokens of a cache line of the result at a time.
    for first in (0..count).step_by(16) {
        let tokens = 16.min(count - first);
        let columns: [&[f32]; 16] =
            std::array::from_fn(|number| from.get(row, first + number.min(tokens - 1), head, size));
        for (number, into) in into.chunks_exact_mut(width).take(size).enumerate() {
            for (into, column) in into[first..first + tokens].iter_mut().zip(columns) {
                *into = column[number];
            }
        }
    }
}

/// Writes rows of `width` numbers to tokens `first..first + count`, each times a factor.
///
/// # Safety
/// No other thread has the row's head.
pub(crate) unsafe fn write_rows(
    rows: &[f32],
    width: usize,
    (into, [row, head]): (&Target<'_, f32>, [usize; 2]),
    [first, count]: [usize; 2],
    size: usize,
    factor: impl Fn(usize) -> f32,
) {
    for (number, values) in rows.chunks_exact(width).take(count).enumerate() {
        // SAFETY: the caller's.
        let into = unsafe { into.get(row, first + number, head, size) };
        let factor = factor(number);
        into.iter_mut().zip(values).for_each(|(into, value)| *into = value * factor);
    }
}

/// Writes `size` rows of `width` numbers, one for each token, transposed.
///
/// # Safety
/// No other thread has the row's head.
pub(crate) unsafe fn write_columns(
    columns: &[f32],
    width: usize,
    (into, [row, head]): (&Target<'_, f32>, [usize; 2]),
    count: usize,
    size: usize,
) {
    for token in 0..count {
        // SAFETY: the caller's.
        let into = unsafe { into.get(row, token, head, size) };
        into.iter_mut().zip(columns[token..].iter().step_by(width)).for_each(|(into, value)| *into = *value);
    }
}
