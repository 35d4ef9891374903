//! Tensors of `[rows, tokens, heads · size]` as the tasks see them: each reads and writes one head of one row.

#![allow(unsafe_code, reason = "several threads write to their parts of one tensor")]

use std::marker::PhantomData;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Sequences of the batch.
    pub(crate) rows: usize,
    /// Tokens of each, or of the longest at most.
    pub(crate) tokens: usize,
    /// Heads.
    pub(crate) heads: usize,
    /// Numbers of each head.
    pub(crate) size: usize,
}

impl Shape {
    /// Tasks: heads of rows.
    pub(crate) fn tasks(self) -> usize {
        self.rows * self.heads
    }

    /// 64-bit words for the bits of one query's weights.
    pub(crate) fn words(self) -> usize {
        words(self.tokens)
    }
}

/// 64-bit words for a bit of each of so many tokens.
pub(crate) fn words(tokens: usize) -> usize {
    tokens.div_ceil(64)
}

/// How far apart things are, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strides {
    pub(crate) row: usize,
    pub(crate) token: usize,
    pub(crate) head: usize,
}

impl Strides {
    /// Packed rows have the stride of a token: `row` is then the token that the row begins with.
    fn at(self, row: usize, token: usize, head: usize) -> usize {
        row * self.row + token * self.token + head * self.head
    }

    /// Elements from the first to behind the last, where each token of a head has `width`.
    pub(crate) fn extent(self, shape: Shape, width: usize) -> usize {
        match shape.tasks() * shape.tokens {
            0 => 0,
            _ => self.at(shape.rows - 1, shape.tokens - 1, shape.heads - 1) + width,
        }
    }
}

/// A tensor that is read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) strides: Strides,
}

impl<T> Source<'_, T> {
    /// The `width` elements of one token of one head.
    pub(crate) fn get(&self, row: usize, token: usize, head: usize, width: usize) -> &[T] {
        &self.data[self.strides.at(row, token, head)..][..width]
    }
}

/// A tensor that tasks write at once, each its own head of its own row.
pub(crate) struct Target<'a, T> {
    data: *mut T,
    len: usize,
    strides: Strides,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: a pointer that only `get` follows; whoever takes a part answers for nobody else having it.
unsafe impl<T: Send> Sync for Target<'_, T> {}

impl<'a, T> Target<'a, T> {
    #[cfg(test)]
    pub(crate) fn new(data: &'a mut [T], strides: Strides) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), strides, borrowed: PhantomData }
    }

    /// Over `len` elements from `data` on, which other targets may hold, too.
    ///
    /// # Safety
    /// They live as long as the target, and what [`Self::get`] gives of them is initialised.
    pub(crate) unsafe fn over(data: *mut T, len: usize, strides: Strides) -> Self {
        Self { data, len, strides, borrowed: PhantomData }
    }

    /// The `width` elements of one token of one head.
    ///
    /// # Safety
    /// Nobody else has a slice with any of these elements.
    #[expect(clippy::mut_from_ref, reason = "parts of one slice go to several threads")]
    pub(crate) unsafe fn get(&self, row: usize, token: usize, head: usize, width: usize) -> &mut [T] {
        let at = self.strides.at(row, token, head);
        assert!(at + width <= self.len, "element {at} of {}", self.len);
        // SAFETY: within the slice, as asserted; nobody else's, as the caller answers for.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), width) }
    }
}
