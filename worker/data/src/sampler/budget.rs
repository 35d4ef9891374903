//! Micro-batches of as many examples as a budget of padded tokens has room for.

use std::cmp::Reverse;

use rand::RngCore;

use super::Plan;
use super::shuffle::{permutation, shuffle};

/// Steps that are sorted by length together, at most ...
const STEPS: usize = 50;

/// ... or so many micro-batches, where these are more: the finer a block is cut, the less its padding.
const MICRO_BATCHES: usize = 200;

/// Blocks of an epoch that has as many steps, at least: with one, every epoch would group the same examples.
const BLOCKS: usize = 4;

/// How many tokens a micro-batch may have, padding included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBudget {
    /// Tokens: the number of examples times the padded length of the longest, at most.
    pub tokens: usize,
    /// The longest example's length is rounded up to a multiple of this (0 and 1: no rounding).
    pub pad_to_multiple: usize,
}

impl TokenBudget {
    /// Tokens that an example takes in a micro-batch in which it is the longest.
    pub(super) fn padded(&self, length: usize) -> usize {
        length.next_multiple_of(self.pad_to_multiple.max(1))
    }

    /// An epoch's micro-batches, those of like length side by side.
    ///
    /// Blocks of the permutation are sorted by length, falling and rising by turns: where two blocks meet,
    /// lengths are alike too, so no micro-batch needs to end there and no step mixes short and long.
    pub(super) fn micro_batches(
        &self,
        lengths: &[usize],
        per_step: usize,
        rng: &mut impl RngCore,
    ) -> Vec<Vec<usize>> {
        let mut order = permutation(lengths.len(), rng);
        for (turn, block) in order.chunks_mut(self.block(lengths, per_step)).enumerate() {
            block.sort_by_key(|example| Reverse(lengths[*example]));
            if turn % 2 == 1 {
                block.reverse();
            }
        }

        let mut all: Vec<Vec<usize>> = Vec::new();
        let mut width = 0;
        for example in order {
            let padded = self.padded(lengths[example]);
            match all.last_mut() {
                Some(open) if (open.len() + 1).saturating_mul(width.max(padded)) <= self.tokens => {
                    open.push(example);
                    width = width.max(padded);
                }
                _ => {
                    all.push(vec![example]);
                    width = padded;
                }
            }
        }
        all
    }

    /// Examples that are sorted by length together.
    fn block(&self, lengths: &[usize], per_step: usize) -> usize {
        let tokens: usize = lengths.iter().map(|length| self.padded(*length)).sum();
        let steps = tokens.div_ceil(self.tokens.saturating_mul(per_step)).max(1);
        let blocks = steps.div_ceil(STEPS.max(MICRO_BATCHES / per_step)).max(BLOCKS);
        lengths.len().div_ceil(blocks.min(steps))
    }
}

/// Spreads an epoch's micro-batches over `steps` steps as evenly as whole ones can be, in random order.
///
/// Epochs differ by a few micro-batches; the number of steps must not, since the learning rate and a
/// checkpoint's place count them. An epoch with too few micro-batches has its largest ones halved.
pub(super) fn spread(mut micro_batches: Vec<Vec<usize>>, steps: usize, rng: &mut impl RngCore) -> Plan {
    while micro_batches.len() < steps {
        let Some(largest) = (0..micro_batches.len()).max_by_key(|at| micro_batches[*at].len()) else { break };
        let half = micro_batches[largest].len().div_ceil(2);
        let rest = micro_batches[largest].split_off(half);
        micro_batches.insert(largest + 1, rest);
    }
    let count = micro_batches.len();
    let mut left = micro_batches.into_iter();
    let mut plan: Plan = (0..steps)
        .map(|step| left.by_ref().take(count * (step + 1) / steps - count * step / steps).collect())
        .collect();
    shuffle(&mut plan, rng);
    plan
}
