//! Micro-batches of a fixed number of examples. Checkpoints resume with this order: it must not change.

use std::cmp::Reverse;

use rand::RngCore;

use super::Plan;
use super::shuffle::{permutation, shuffle};

/// Steps that are sorted by length together, at most.
const BLOCK: usize = 50;

/// The steps of an epoch: `per_step` micro-batches of `micro_batch` examples each; the last step takes what is
/// left.
pub(super) fn plan(lengths: &[usize], micro_batch: usize, per_step: usize, rng: &mut impl RngCore) -> Plan {
    let global_batch = micro_batch.saturating_mul(per_step);
    let mut order = permutation(lengths.len(), rng);
    let full = order.len() / global_batch;
    // Small sets are sorted in at least four blocks where they can be, else every epoch would group the same examples.
    let block = BLOCK.min((full / 4).max(1));
    for block in order.chunks_mut(block.saturating_mul(global_batch)) {
        block.sort_by_key(|example| Reverse(lengths[*example]));
    }

    let mut steps: Vec<&[usize]> = order.chunks(global_batch).collect();
    // The short step, if any, stays at the end: only then do all others keep their place and size.
    shuffle(&mut steps[..full], rng);
    steps.into_iter().map(|step| cut(step, micro_batch)).collect()
}

/// The same in the order of the permutation, whatever the lengths.
pub(super) fn ungrouped(count: usize, micro_batch: usize, per_step: usize, rng: &mut impl RngCore) -> Plan {
    let order = permutation(count, rng);
    order.chunks(micro_batch.saturating_mul(per_step)).map(|step| cut(step, micro_batch)).collect()
}

fn cut(step: &[usize], micro_batch: usize) -> Vec<Vec<usize>> {
    step.chunks(micro_batch).map(<[usize]>::to_vec).collect()
}
