//! Scaled dot-product attention on CPUs (Vaswani et al., 2017), with dropout of its weights, as a node of libtorch's autograd graph.
//!
//! libtorch's own fused kernel for CPUs knows no dropout; without it the weights of all heads are written to memory and read again
//! a dozen times in a training step. Here a head's weights exist for a block of queries at a time, in cache; the backward pass
//! computes them again.
//!
//! | module | what it holds |
//! |---|---|
//! | `ffi`, `node.cpp` | the node: tensors, and what is kept between the passes |
//! | `pass` | the two passes of one head of one row |
//! | `product`, `softmax` | matrix products and exponentials of blocks, on whatever vectors the processor has |
//! | `mask` | dropout as bits |
//! | `scratch`, `field` | a task's room, and its view of the tensors |

mod ffi;
mod field;
mod mask;
mod pass;
mod product;
mod scratch;
mod softmax;

use tch::Tensor;

pub use mask::{Dropout, scale};

/// What attention may fail with.
#[derive(Debug, thiserror::Error)]
pub enum AttentionError {
    /// libtorch's words: memory ran out, or the tensors do not belong together.
    #[error("{0}")]
    Torch(String),
}

/// Where queries, keys and values are.
#[derive(Clone, Copy, Debug)]
pub enum Heads<'a> {
    /// In one tensor `[rows, tokens, 3 · heads · size]`, as one matrix product makes them.
    Together(&'a Tensor),
    /// In three of `[rows, tokens, heads · size]`.
    Apart([&'a Tensor; 3]),
}

/// How the sequences of a batch lie in the tensors.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Each is a row of as many tokens.
    Alike {
        /// Of `rows · tokens` elements: added to the scores of a row's keys. Keys behind the last with one above `f32::MIN / 4` are
        /// passed over, so a large negative number marks padding.
        bias: Option<&'a Tensor>,
    },
    /// One behind the other without padding, all in one row. Each has the bits, of dropout's masks too, that it would have alone.
    Packed {
        /// The token that each begins with, and the number of all tokens: 64-bit numbers.
        starts: &'a Tensor,
        /// Tokens that the longest has at most.
        width: i64,
    },
}

/// Attention of every head, `[rows, tokens, heads · size]`: for each query the mean of the values, weighted by the softmax of the products
/// of query and keys over the root of `size`.
///
/// Queries see the keys of their own sequence. Everything is of 32-bit floats on the CPU. Each head of each row is one task of one thread: the number of threads, which
/// is libtorch's, changes no bit.
///
/// # Errors
/// When memory runs out, or tensors do not fit together.
pub fn attention(
    of: Heads<'_>,
    rows: Rows<'_>,
    heads: i64,
    dropout: Option<Dropout>,
) -> Result<Tensor, AttentionError> {
    let tensors = match of {
        Heads::Together(all) => [Some(all), None, None],
        Heads::Apart(three) => three.map(Some),
    };
    ffi::apply(tensors, rows, heads, dropout)
}
