//! The order of training examples: a function of the seed and the step, never of the number of workers.
//!
//! Every epoch is a fresh permutation of all examples. To waste little padding, unless told not to, examples of like length are
//! brought together (in the spirit of transformers' `LengthGroupedSampler`): blocks of some steps of the
//! permutation are sorted by length and cut into steps, whose order is shuffled again so that training does
//! not see lengths in order. All micro-batches of one grouped step have alike lengths, so ranks that compute
//! different ones finish together. A micro-batch has a fixed number of examples (`fixed`) or as many as a budget of
//! padded tokens has room for (`budget`).

mod budget;
mod fixed;
mod shuffle;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::DataError;
pub use budget::TokenBudget;

/// An epoch: its steps, the micro-batches of each, the feature indices of each.
type Plan = Vec<Vec<Vec<usize>>>;

/// How large a micro-batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// So many examples of like length, whatever it is.
    Examples(usize),
    /// So many examples, as they come.
    Ungrouped(usize),
    /// As many examples as the budget has room for.
    Tokens(TokenBudget),
}

/// Gives every step of training its examples, by random access.
#[derive(Debug)]
pub struct Sampler {
    lengths: Vec<usize>,
    batch_size: BatchSize,
    micro_batches_per_step: usize,
    steps_per_epoch: usize,
    seed: u64,
    /// The plan of the epoch that was asked for last: steps are asked for in order.
    current: Mutex<Option<(u64, Arc<Plan>)>>,
}

/// The examples of one optimizer step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Feature indices, micro-batch by micro-batch. Under [`BatchSize::Examples`] and [`BatchSize::Ungrouped`] only an epoch's last
    /// step may have fewer or shorter ones; under [`BatchSize::Tokens`] steps may differ by one micro-batch.
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
    /// One step consumes `micro_batches_per_step` micro-batches of the given size, whatever number of workers
    /// computes them. Under a token budget that number is exact on average only: every epoch has as many steps
    /// as the first one, and spreads its micro-batches evenly over them.
    ///
    /// # Errors
    /// [`DataError::Setting`] when there is nothing to sample, a size is 0, or the longest feature does not fit
    /// into the budget.
    pub fn new(
        lengths: &[usize],
        batch_size: BatchSize,
        micro_batches_per_step: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (name, value, least, why) = match batch_size {
            BatchSize::Examples(examples) | BatchSize::Ungrouped(examples) => ("batch_size", examples, 1, ""),
            BatchSize::Tokens(budget) => (
                "tokens_per_batch",
                budget.tokens,
                budget.padded(longest),
                ", the longest window's padded length",
            ),
        };
        for (name, value, least, reason) in [
            ("features", lengths.len(), 1, "there is nothing to train on".to_owned()),
            (name, value, least, format!("it must be at least {least}{why}")),
            ("micro_batches_per_step", micro_batches_per_step, 1, "it must be at least 1".to_owned()),
        ] {
            if value < least {
                return Err(DataError::Setting { name, value, reason });
            }
        }
        let steps_per_epoch = match batch_size {
            BatchSize::Examples(examples) | BatchSize::Ungrouped(examples) => {
                lengths.len().div_ceil(examples.saturating_mul(micro_batches_per_step))
            }
            BatchSize::Tokens(budget) => budget
                .micro_batches(lengths, micro_batches_per_step, &mut shuffle::generator(seed, 0))
                .len()
                .div_ceil(micro_batches_per_step),
        };
        let lengths = lengths.to_vec();
        Ok(Self {
            lengths,
            batch_size,
            micro_batches_per_step,
            steps_per_epoch,
            seed,
            current: Mutex::new(None),
        })
    }

    /// Steps that visit every example once; a short last one counts. The same in every epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// Examples in a step, averaged over an epoch.
    #[must_use]
    pub fn mean_examples(&self) -> f64 {
        self.lengths.len() as f64 / self.steps_per_epoch as f64
    }

    /// The examples of a step, counted from 0 over all epochs.
    #[must_use]
    pub fn step(&self, global_step: usize) -> Step {
        let epoch = (global_step / self.steps_per_epoch) as u64;
        let micro_batches = self.plan(epoch)[global_step % self.steps_per_epoch].clone();
        let examples = micro_batches.iter().map(Vec::len).sum();
        Step { epoch, micro_batches, examples }
    }

    /// Where training stands after `global_step` steps.
    #[must_use]
    pub fn cursor(&self, global_step: usize) -> Cursor {
        let per_epoch = self.steps_per_epoch;
        Cursor { epoch: (global_step / per_epoch) as u64, step: (global_step % per_epoch) as u64 }
    }

    /// The inverse of [`cursor`](Self::cursor), for the same data and batch size.
    #[must_use]
    pub fn global_step(&self, cursor: Cursor) -> usize {
        let steps = cursor.epoch.saturating_mul(self.steps_per_epoch as u64).saturating_add(cursor.step);
        usize::try_from(steps).unwrap_or(usize::MAX)
    }

    fn plan(&self, epoch: u64) -> Arc<Plan> {
        // A panic elsewhere cannot leave a half-written plan behind: the value is replaced as a whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((known, plan)) if *known == epoch => Arc::clone(plan),
            _ => {
                let plan = Arc::new(self.planned(epoch));
                *current = Some((epoch, Arc::clone(&plan)));
                plan
            }
        }
    }

    fn planned(&self, epoch: u64) -> Plan {
        let mut rng = shuffle::generator(self.seed, epoch);
        let (lengths, per_step) = (&self.lengths, self.micro_batches_per_step);
        match self.batch_size {
            BatchSize::Examples(examples) => fixed::plan(lengths, examples, per_step, &mut rng),
            BatchSize::Ungrouped(examples) => fixed::ungrouped(lengths.len(), examples, per_step, &mut rng),
            BatchSize::Tokens(budget) => {
                let micro_batches = budget.micro_batches(lengths, per_step, &mut rng);
                budget::spread(micro_batches, self.steps_per_epoch, &mut rng)
            }
        }
    }
}

/// The micro-batches of a step that `rank` of `world` ranks computes. Over all
/// ranks every index of `0..micro_batches` comes exactly once; shares differ by one at most.
pub fn share(micro_batches: usize, rank: usize, world: usize) -> impl Iterator<Item = usize> {
    let mine = if rank < world { micro_batches } else { 0 };
    (rank..mine).step_by(world.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(lengths: &[usize], micro: usize, per_step: usize, seed: u64) -> Sampler {
        Sampler::new(lengths, BatchSize::Examples(micro), per_step, seed).unwrap()
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
    fn ungrouped_steps_have_any_lengths() {
        let lengths: Vec<usize> = (0..4000).map(|i| 20 + (i * 7919) % 300).collect();
        let s = Sampler::new(&lengths, BatchSize::Ungrouped(8), 2, 7).unwrap();
        let mean =
            |k: usize| s.step(k).micro_batches.concat().iter().map(|i| lengths[*i]).sum::<usize>() / 16;
        assert!((0..250).all(|k| (80..260).contains(&mean(k))), "a step has short or long examples only");
        // The order of existing checkpoints.
        assert_eq!(s.step(0).micro_batches[0], UNGROUPED);
        assert_ne!(s.step(0).micro_batches, s.step(250).micro_batches);
    }

    const UNGROUPED: [usize; 8] = [166, 214, 2467, 3352, 1942, 2174, 2580, 1314];

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
        assert!(message(Sampler::new(&[], BatchSize::Examples(1), 1, 0)).contains("nothing to train on"));
        assert!(
            message(Sampler::new(&[1], BatchSize::Examples(0), 1, 0))
                .starts_with("batch_size = 0 cannot be used")
        );
        assert!(message(Sampler::new(&[1], BatchSize::Examples(1), 0, 0)).contains("at least 1"));
    }

    #[test]
    fn shares_outside_the_world_are_empty() {
        assert_eq!(share(5, 1, 3).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(share(5, 3, 3).count(), 0);
        assert_eq!(share(5, 0, 0).count(), 0);
    }
}
