//! Forward and backward pass of one head of one row.
//!
//! Weights are never kept: the backward pass computes them again from each query's sum, a block of queries at a time
//! (Dao et al., 2022, whose softmax over parts of a row is not needed here: a block's scores fit into the cache). Of dropout a bit is
//! kept for each weight.

#![allow(unsafe_code, reason = "several threads write to their parts of one tensor")]

use pulp::{Arch, Simd, WithSimd};

use crate::field::{Shape, Source, Target, words};
use crate::mask::Dropout;
use crate::product::{Product, VECTORS, View};
use crate::scratch::{BLOCK, Room, Widths, copy_columns, copy_rows, write_columns, write_rows};
use crate::softmax::{Row, exponentials};

/// What both passes read.
pub(crate) struct Inputs<'a> {
    pub(crate) shape: Shape,
    pub(crate) query: Source<'a, f32>,
    pub(crate) key: Source<'a, f32>,
    pub(crate) value: Source<'a, f32>,
    /// Where rows begin that lie one behind the other, and the last ends; none where all have as many tokens as the shape says.
    pub(crate) starts: Option<&'a [i64]>,
    /// Added to the scores of all queries of a row, `[rows, tokens]`: a large negative number at keys that are padding.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) dropout: Option<Dropout>,
}

/// What a task of either pass begins with.
struct Begun<'a> {
    row: usize,
    head: usize,
    /// Where tensors of tokens have the row, and the head.
    task: [usize; 2],
    /// The row's.
    tokens: usize,
    widths: Widths,
    bias: &'a [f32],
    /// Keys up to the last that is none of padding.
    keys: usize,
    /// Their columns: whole tiles.
    columns: usize,
}

impl Inputs<'_> {
    fn begin<'a>(&self, index: usize, lanes: usize, room: &mut Room<'a>) -> Begun<'a> {
        let (row, head) = (index / self.shape.heads, index % self.shape.heads);
        let (begins, tokens) = match self.starts {
            Some(starts) => (starts[row] as usize, (starts[row + 1] - starts[row]) as usize),
            None => (row, self.shape.tokens),
        };
        let widths = Widths::new(Shape { tokens, ..self.shape }, lanes);
        let bias = room.take(widths.tokens);
        let keys = self.keys(row, tokens, bias);
        let columns = keys.next_multiple_of(VECTORS * lanes);
        Begun { row, head, task: [begins, head], tokens, widths, bias, keys, columns }
    }

    fn factor(&self) -> f32 {
        1.0 / (self.shape.size as f32).sqrt()
    }

    /// Fills in a row's bias, minus infinity behind its tokens, and gives the number of keys up to the last that is none of
    /// padding: the others' weights are zero.
    fn keys(&self, row: usize, tokens: usize, bias: &mut [f32]) -> usize {
        bias[tokens..].fill(f32::NEG_INFINITY);
        let Some(given) = self.bias else { return tokens };
        bias[..tokens].copy_from_slice(&given[row * tokens..][..tokens]);
        // A row that is padding altogether has weights, too: all alike.
        bias[..tokens].iter().rposition(|bias| *bias > f32::MIN / 4.0).map_or(tokens, |last| last + 1)
    }
}

/// A forward pass.
pub(crate) struct Forward<'a> {
    pub(crate) inputs: Inputs<'a>,
    pub(crate) output: Target<'a, f32>,
    /// For each query its largest score, and one over the sum of the exponentials of all below it.
    pub(crate) sums: Target<'a, f32>,
    /// With dropout, for each query the bits of the weights that stay.
    pub(crate) kept: Option<Target<'a, u64>>,
}

/// A backward pass.
pub(crate) struct Backward<'a> {
    pub(crate) inputs: Inputs<'a>,
    pub(crate) output: Source<'a, f32>,
    pub(crate) sums: Source<'a, f32>,
    pub(crate) kept: Option<Source<'a, u64>>,
    /// Of the output.
    pub(crate) gradient: Source<'a, f32>,
    pub(crate) query_gradient: Target<'a, f32>,
    pub(crate) key_gradient: Target<'a, f32>,
    pub(crate) value_gradient: Target<'a, f32>,
}

impl Forward<'_> {
    /// Computes task `index`.
    ///
    /// # Safety
    /// No other thread runs the same task of a pass over the same tensors.
    pub(crate) unsafe fn run(&self, index: usize, scratch: &mut [f32]) {
        Arch::new().dispatch(ForwardTask { pass: self, index, scratch });
    }
}

impl Backward<'_> {
    /// Computes task `index`.
    ///
    /// # Safety
    /// No other thread runs the same task of a pass over the same tensors.
    pub(crate) unsafe fn run(&self, index: usize, scratch: &mut [f32]) {
        Arch::new().dispatch(BackwardTask { pass: self, index, scratch });
    }
}

pub(crate) struct ForwardTask<'a, 'b> {
    pub(crate) pass: &'a Forward<'b>,
    pub(crate) index: usize,
    pub(crate) scratch: &'a mut [f32],
}

impl WithSimd for ForwardTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { inputs, output, sums, kept } = self.pass;
        let size = inputs.shape.size;
        let mut room = Room(self.scratch);
        let begun = inputs.begin(self.index, S::F32_LANES, &mut room);
        let Begun { row, head, task, tokens, widths, bias, keys, columns } = begun;
        let words = words(tokens);
        let (key, value) = (room.take(size * widths.tokens), room.take(tokens * widths.size));
        copy_columns(&inputs.key, task, keys, size, (&mut *key, widths.tokens));
        copy_rows(&inputs.value, task, [0, keys], size, (&mut *value, widths.size, 1.0));
        let (query, scores) = (room.take(BLOCK * size), room.take(BLOCK * widths.tokens));
        let context = room.take(BLOCK * widths.size);
        // SAFETY: this task's alone.
        let mut kept = kept.as_ref().map(|kept| unsafe { kept.get(row, 0, head, tokens * words) });
        if let (Some(kept), Some(dropout)) = (&mut kept, &inputs.dropout) {
            dropout.fill(row, head, kept);
        }
        let scale = inputs.dropout.map_or(1.0, |dropout| dropout.scale());

        for first in (0..tokens).step_by(BLOCK) {
            let count = BLOCK.min(tokens - first);
            copy_rows(&inputs.query, task, [first, count], size, (&mut *query, size, inputs.factor()));
            simd.vectorize(Product {
                size: [count, columns, size],
                a: View::rows(query, size),
                b: key,
                c: scores,
                width: widths.tokens,
                add: false,
            });
            let mut shares = [0.0; BLOCK];
            for (number, scores) in scores.chunks_exact_mut(widths.tokens).take(count).enumerate() {
                let kept = kept.as_deref().map(|kept| &kept[(first + number) * words..][..words]);
                let both = exponentials(simd, &mut scores[..columns], &bias[..columns], kept);
                shares[number] = both[1];
                // SAFETY: this task's alone.
                unsafe { sums.get(row, first + number, head, 2).copy_from_slice(&both) };
            }
            simd.vectorize(Product {
                size: [count, widths.size, keys],
                a: View::rows(scores, widths.tokens),
                b: value,
                c: context,
                width: widths.size,
                add: false,
            });
            // SAFETY: this task's alone.
            unsafe {
                write_rows(context, widths.size, (output, task), [first, count], size, |number| {
                    scale * shares[number]
                });
            }
        }
    }
}

pub(crate) struct BackwardTask<'a, 'b> {
    pub(crate) pass: &'a Backward<'b>,
    pub(crate) index: usize,
    pub(crate) scratch: &'a mut [f32],
}

impl WithSimd for BackwardTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let pass = self.pass;
        let inputs = &pass.inputs;
        let size = inputs.shape.size;
        let mut room = Room(self.scratch);
        let begun = inputs.begin(self.index, S::F32_LANES, &mut room);
        let Begun { row, head, task, tokens, widths, bias, keys, columns } = begun;
        let words = words(tokens);
        let kept = pass.kept.as_ref().map(|kept| kept.get(row, 0, head, tokens * words));
        let [key_columns, value_columns, key_sums, value_sums] =
            std::array::from_fn(|_| room.take(size * widths.tokens));
        let key = room.take(tokens * widths.size);
        copy_columns(&inputs.key, task, keys, size, (&mut *key_columns, widths.tokens));
        copy_columns(&inputs.value, task, keys, size, (&mut *value_columns, widths.tokens));
        copy_rows(&inputs.key, task, [0, keys], size, (&mut *key, widths.size, 1.0));
        let [query, gradient] = std::array::from_fn(|_| room.take(BLOCK * size));
        let [scores, weights] = std::array::from_fn(|_| room.take(BLOCK * widths.tokens));
        let query_sums = room.take(BLOCK * widths.size);
        let scale = inputs.dropout.map_or(1.0, |dropout| dropout.scale());

        for first in (0..tokens).step_by(BLOCK) {
            let count = BLOCK.min(tokens - first);
            copy_rows(&inputs.query, task, [first, count], size, (&mut *query, size, inputs.factor()));
            copy_rows(&pass.gradient, task, [first, count], size, (&mut *gradient, size, 1.0));
            for (a, b, c) in
                [(&*query, &*key_columns, &mut *scores), (&*gradient, &*value_columns, &mut *weights)]
            {
                simd.vectorize(Product {
                    size: [count, columns, size],
                    a: View::rows(a, size),
                    b,
                    c,
                    width: widths.tokens,
                    add: false,
                });
            }
            let rows = scores.chunks_exact_mut(widths.tokens).zip(weights.chunks_exact_mut(widths.tokens));
            for (number, (scores, weights)) in rows.take(count).enumerate() {
                let token = first + number;
                let output = pass.output.get(task[0], token, head, size);
                let gradient = &gradient[number * size..][..size];
                let sums = pass.sums.get(row, token, head, 2);
                Row {
                    bias: &bias[..columns],
                    largest: sums[0],
                    share: sums[1],
                    delta: output.iter().zip(gradient).map(|(output, gradient)| output * gradient).sum(),
                    kept: kept.map(|kept| &kept[token * words..][..words]),
                    scale,
                }
                .differentiate(simd, &mut scores[..columns], &mut weights[..columns]);
            }
            for (a, b, c) in [(&*gradient, &*scores, &mut *value_sums), (&*query, &*weights, &mut *key_sums)]
            {
                simd.vectorize(Product {
                    size: [size, columns, count],
                    a: View::columns(a, size),
                    b,
                    c,
                    width: widths.tokens,
                    add: true,
                });
            }
            simd.vectorize(Product {
                size: [count, widths.size, keys],
                a: View::rows(weights, widths.tokens),
                b: key,
                c: query_sums,
                width: widths.size,
                add: false,
            });
            // SAFETY: this task's alone.
            unsafe {
                let into = (&pass.query_gradient, task);
                write_rows(query_sums, widths.size, into, [first, count], size, |_| inputs.factor());
            }
        }
        for (target, sums) in [(&pass.key_gradient, key_sums), (&pass.value_gradient, value_sums)] {
            // SAFETY: this task's alone.
            unsafe { write_columns(sums, widths.tokens, (target, task), tokens, size) };
        }
    }
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
