//! Question-answering heads.

pub mod conditional;
pub mod span;

use tch::Tensor;

/// Which head a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Hugging Face's `*ForQuestionAnswering`.
    Span,
    /// The replaced program's `ModelForQAConditionalV1`, with this many inner units (it always used 768).
    Conditional {
        /// Width of the inner layers of the end and the answerability scores.
        units: i64,
    },
}

impl HeadKind {
    /// The conditional head as the replaced program trained it, whatever the encoder's width.
    pub const CONDITIONAL: Self = Self::Conditional { units: 768 };
}

/// How the span head's loss treats padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossForm {
    /// Positions beyond an example's length take no part, so that padding never changes the mathematics.
    Masked,
    /// Hugging Face's: padded positions compete, so that inputs must not be packed. For comparisons with its values only.
    HuggingFace,
}

/// A batch's loss, summed over its examples.
#[derive(Debug)]
pub struct Loss {
    /// What is differentiated: a scalar.
    pub total: Tensor,
    /// The part of the span, a scalar without gradient.
    pub span: Tensor,
    /// The part of answerability, where the head has one.
    pub answerability: Option<Tensor>,
}

/// What a head says of a batch. Positions are counted from the start of the sequence.
#[derive(Debug)]
pub enum Scores {
    /// Logits of start and end, each `[B, T]`.
    Span {
        /// Start logits.
        start: Tensor,
        /// End logits.
        end: Tensor,
    },
    /// Log-probabilities of the best starts and, for each of them, the best ends.
    Conditional {
        /// `[B, S]`.
        start: Tensor,
        /// `[B, S]`, int64.
        start_index: Tensor,
        /// `[B, S, E]`.
        end: Tensor,
        /// `[B, S, E]`, int64.
        end_index: Tensor,
        /// Log-probability that there is no answer, `[B]`.
        no_answer: Tensor,
    },
}

/// Logarithm of the softmax over the positions where `allowed` is true; minus infinity elsewhere.
pub(crate) fn masked_log_softmax(logits: &Tensor, allowed: &Tensor) -> Tensor {
    logits.masked_fill(&allowed.logical_not(), f64::NEG_INFINITY).log_softmax(-1, tch::Kind::Float)
}

/// `values[i, index[i]]` of `[B, T]` values and `[B]` indices.
pub(crate) fn pick(values: &Tensor, index: &Tensor) -> Tensor {
    values.gather(1, &index.unsqueeze(1), false).squeeze_dim(1)
}
