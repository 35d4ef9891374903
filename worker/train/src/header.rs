//! What every step tells all ranks besides gradients.
//!
//! The header is a few floats behind the head's gradient, the first bucket to be reduced. It is never
//! compressed. One all-reduce thus yields the exact loss of uneven batches and a stop that all ranks obey at
//! the same step.

use serde::{Deserialize, Serialize};

/// Sums over the examples of one optimizer step; before the all-reduce this rank's, after it all ranks'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepHeader {
    /// Loss summed over examples.
    pub loss: f64,
    /// The span part of it.
    pub span: f64,
    /// The answerability part of it.
    pub answerability: f64,
    /// Number of examples.
    pub examples: u64,
    /// Tokens that are no padding.
    pub tokens: u64,
    /// Tokens with padding.
    pub padded_tokens: u64,
    /// Ranks that want to stop.
    pub stop_votes: u64,
    /// Micro-batches that were computed in pieces, since memory had run out for them, or for one as large.
    #[serde(default)]
    pub in_pieces: u64,
}

impl StepHeader {
    /// Floats that a header takes. Counts stay exact up to 2^24.
    pub const LEN: usize = 8;

    /// Writes the header into [`Self::LEN`] floats.
    pub fn write(&self, to: &mut [f32]) {
        let fields = [
            self.loss as f32,
            self.span as f32,
            self.answerability as f32,
            self.examples as f32,
            self.tokens as f32,
            self.padded_tokens as f32,
            self.stop_votes as f32,
            self.in_pieces as f32,
        ];
        to.copy_from_slice(&fields);
    }

    /// Reads a header back.
    pub fn read(from: &[f32]) -> Self {
        let real = |k: usize| f64::from(from.get(k).copied().unwrap_or_default());
        let count = |k: usize| real(k).round() as u64;
        Self {
            loss: real(0),
            span: real(1),
            answerability: real(2),
            examples: count(3),
            tokens: count(4),
            padded_tokens: count(5),
            stop_votes: count(6),
            in_pieces: count(7),
        }
    }

    /// Adds another step's sums, for a line that covers several steps.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.span += other.span;
        self.answerability += other.answerability;
        self.examples += other.examples;
        self.tokens += other.tokens;
        self.padded_tokens += other.padded_tokens;
        self.in_pieces += other.in_pieces;
    }

    /// Mean loss of the examples.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.examples.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_floats_and_adds() {
        let header = StepHeader {
            loss: 1.5,
            span: 1.0,
            answerability: 0.5,
            examples: 8,
            tokens: 1_200_001,
            padded_tokens: 1_300_000,
            stop_votes: 1,
            in_pieces: 3,
        };
        let mut floats = [9.0; StepHeader::LEN];
        header.write(&mut floats);
        assert_eq!(StepHeader::read(&floats), header);
        let mut sum = header;
        sum.add(&header);
        assert_eq!((sum.examples, sum.mean_loss()), (16, 3.0 / 16.0));
    }
}
