//! The order of training examples: a function of the seed and the step, never of the number of workers.
//!
//! Every epoch is a fresh permutation of all examples. To waste little padding,
//! examples of like length are brought together (in the spirit of transformers'
//! `LengthGroupedSampler`): blocks of some global batches of the permutation are
//! sorted by length and cut into global batches, whose order is shuffled again so
//! that training does not see lengths in order. All micro-batches of one step
//! have alike lengths, so ranks that compute different ones finish together.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use crate::DataError;

/// Global batches that are sorted by length together, at most.
const BLOCK: usize = 50;

/// Gives every step of training its examples, by random access.
#[derive(Debug)]
pub struct Sampler {
    lengths: Vec<usize>,
    micro_batch: usize,
    global_batch: usize,
    seed: u64,
    /// The order of the epoch that was asked for last: steps are asked for in order.
    current: Mutex<Option<(u64, Arc<[usize]>)>>,
}

/// The examples of one optimizer step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Feature indices, micro-batch by micro-batch. Only an epoch's last step may
    /// have fewer or shorter ones.
    pub micro_batches: Vec<Vec<usize>>,
    /// Number of examples in all micro-batches: the divisor of the step's loss.
    pub examples: usize,
}

/// A place in training, for checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Steps of this epoch that are done.
    pub step: u64,
}

impl Sampler {
    /// A sampler over features with the given token lengths.
    ///
    /// One step consumes `micro_batches_per_step` micro-batches of `micro_batch`
    /// examples, whatever number of workers computes them.
    ///
    /// # Errors
    /// [`DataError::Setting`] when there is nothing to sample or a size is 0.
    pub fn new(
        lengths: &[usize],
        micro_batch: usize,
        micro_batches_per_step: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        for (name, value, reason) in [
            ("features", lengths.len(), "there is nothing to train on"),
            ("batch_size", micro_batch, "it must be at least 1"),
            ("micro_batches_per_step", micro_batches_per_step, "it must be at least 1"),
        ] {
            if value == 0 {
                return Err(DataError::Setting { name, value, reason: reason.to_owned() });
            }
        }
        let global_batch = micro_batch.saturating_mul(micro_batches_per_step);
        Ok(Self { lengths: lengths.to_vec(), micro_batch, global_batch, seed, current: Mutex::new(None) })
    }

    /// Steps that visit every example once; the last, short one counts.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.lengths.len().div_ceil(self.global_batch)
    }

    /// The examples of a step, counted from 0 over all epochs.
    #[must_use]
    pub fn step(&self, global_step: usize) -> Step {
        let per_epoch = self.steps_per_epoch();
        let epoch = (global_step / per_epoch) as u64;
        let order = self.order(epoch);
        let start = (global_step % per_epoch) * self.global_batch;
        let end = (start.saturating_add(self.global_batch)).min(order.len());
        let chosen = &order[start..end];
        let micro_batches = chosen.chunks(self.micro_batch).map(<[usize]>::to_vec).collect();
        Step { epoch, micro_batches, examples: chosen.len() }
    }

    /// Where training stands after `global_step` steps.
    #[must_use]
    pub fn cursor(&self, global_step: usize) -> Cursor {
        let per_epoch = self.steps_per_epoch();
        Cursor { epoch: (global_step / per_epoch) as u64, step: (global_step % per_epoch) as u64 }
    }

    /// The inverse of [`cursor`](Self::cursor), for the same data and batch size.
    #[must_use]
    pub fn global_step(&self, cursor: Cursor) -> usize {
        let steps = cursor.epoch.saturating_mul(self.steps_per_epoch() as u64).saturating_add(cursor.step);
        usize::try_from(steps).unwrap_or(usize::MAX)
    }

    fn order(&self, epoch: u64) -> Arc<[usize]> {
        // A panic elsewhere cannot leave a half-written order behind: the value is replaced as a whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((known, order)) if *known == epoch => Arc::clone(order),
            _ => {
                let order: Arc<[usize]> = self.shuffled(epoch).into();
                *current = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    fn shuffled(&self, epoch: u64) -> Vec<usize> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(mix(self.seed, epoch));
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        shuffle(&mut order, &mut rng);

        // Small sets are sorted in at least four blocks where they can be, else every epoch would group the same examples.
        let batches = BLOCK.min((order.len() / self.global_batch.saturating_mul(4)).max(1));
        for block in order.chunks_mut(batches.saturating_mul(self.global_batch)) {
            block.sort_by_key(|example| std::cmp::Reverse(self.lengths[*example]));
        }

        // The short batch, if any, stays at the end: only then do all other steps keep their place and size.
        let full = order.len() / self.global_batch;
        let mut places: Vec<usize> = (0..full).collect();
        shuffle(&mut places, &mut rng);
        let rest = order[full * self.global_batch..].iter();
        let batches = places.iter().flat_map(|p| &order[p * self.global_batch..(p + 1) * self.global_batch]);
        batches.chain(rest).copied().collect()
    }
}

/// The micro-batches of a step that `rank` of `world` ranks computes. Over all
/// ranks every index of `0..micro_batches` comes exactly once; shares differ by one at most.
pub fn share(micro_batches: usize, rank: usize, world: usize) -> impl Iterator<Item = usize> {
    let mine = if rank < world { micro_batches } else { 0 };
    (rank..mine).step_by(world.max(1))
}

/// `SplitMix64`'s finaliser over both numbers, so that neighbouring seeds and epochs share nothing.
fn mix(seed: u64, epoch: u64) -> u64 {
    let mut z = seed.wrapping_add(epoch.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fisher and Yates, spelled out: the `rand` crate may change its shuffle between
/// versions, and a checkpoint must resume with the same order.
fn shuffle(items: &mut [usize], rng: &mut impl RngCore) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last as u64 + 1, rng));
    }
}

/// A number in `0..bound` without bias (Lemire's multiplication method).
fn below(bound: u64, rng: &mut impl RngCore) -> usize {
    let reject = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        let (high, low) = ((product >> 64) as u64, product as u64);
        if low >= reject {
            // Below `bound`, which came from a usize.
            return high as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(lengths: &[usize], micro: usize, per_step: usize, seed: u64) -> Sampler {
        Sampler::new(lengths, micro, per_step, seed).unwrap()
    }

    #[test]
    fn the_order_is_pinned_across_platforms_and_versions() {
        let lengths: Vec<usize> = (0..23).map(|i| 10 + (i * 7) % 13).collect();
        let s = sampler(&lengths, 2, 2, 100);
        assert_eq!(s.steps_per_epoch(), 6);
        let order: Vec<usize> = (0..6).flat_map(|k| s.step(k).micro_batches.concat()).collect();
        assert_eq!(order, PINNED, "the order of every existing checkpoint would change");
    }

    const PINNED: [usize; 23] =
        [9, 5, 10, 19, 22, 18, 1, 12, 11, 17, 4, 2, 14, 21, 8, 0, 7, 3, 6, 15, 20, 16, 13];

    #[test]
    fn batches_are_alike_in_length_but_steps_are_not_in_order() {
        let lengths: Vec<usize> = (0..4000).map(|i| 20 + (i * 7919) % 300).collect();
        let s = sampler(&lengths, 8, 2, 7);
        let spread = |k: usize| {
            let all: Vec<usize> = s.step(k).micro_batches.concat().iter().map(|i| lengths[*i]).collect();
            all.iter().max().unwrap() - all.iter().min().unwrap()
        };
        assert!((0..249).all(|k| spread(k) <= 20), "a step mixes short and long examples");
        let longest = |k: usize| lengths[s.step(k).micro_batches[0][0]];
        let falls = (1..250).filter(|k| longest(*k) < longest(*k - 1)).count();
        assert!((80..170).contains(&falls), "steps come in order of length: {falls} falls of 249");
    }

    #[test]
    fn epochs_differ_and_group_anew() {
        let lengths = vec![5; 40];
        let s = sampler(&lengths, 4, 2, 1);
        assert_ne!(s.step(0).micro_batches, s.step(5).micro_batches);
        assert_eq!((s.step(4).epoch, s.step(5).epoch), (0, 1));
        assert_ne!(s.step(0), sampler(&lengths, 4, 2, 2).step(0));
    }

    #[test]
    fn the_cursor_names_every_step() {
        let s = sampler(&[3; 10], 2, 2, 1);
        for step in [0, 1, 2, 3, 7, 100] {
            assert_eq!(s.global_step(s.cursor(step)), step);
        }
        assert_eq!(s.cursor(7), Cursor { epoch: 2, step: 1 });
        assert_eq!(serde_json::to_string(&s.cursor(7)).unwrap(), r#"{"epoch":2,"step":1}"#);
    }

    #[test]
    fn sizes_of_zero_are_refused() {
        let message = |r: Result<Sampler, DataError>| r.unwrap_err().to_string();
        assert!(message(Sampler::new(&[], 1, 1, 0)).contains("nothing to train on"));
        assert!(message(Sampler::new(&[1], 0, 1, 0)).starts_with("batch_size = 0 cannot be used"));
        assert!(message(Sampler::new(&[1], 1, 0, 0)).contains("at least 1"));
    }

    #[test]
    fn shares_outside_the_world_are_empty() {
        assert_eq!(share(5, 1, 3).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(share(5, 3, 3).count(), 0);
        assert_eq!(share(5, 0, 0).count(), 0);
    }
}
