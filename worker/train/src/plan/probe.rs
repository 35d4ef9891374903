//! How long a run will take, from a few of its steps.

use std::cmp::Reverse;

use squad_data::sampler::share;
use squad_data::{Features, Sampler};
use squad_model::Network;
use squad_model::inputs::computes_padding;
use squad_proto::JobSpec;
use squad_proto::plan::{MicroBatchShape, Time, Work};

use crate::error::TrainError;
use crate::measure::{Limits, measure};
use crate::output::peak_rss_bytes;
use crate::prepare::{TrainSet, batch_size};

/// Steps that are timed.
const TIMED: usize = 6;

/// The first has the most tokens, so that memory is at its peak, and does not count. Fixed: it is no wait.
const LIMITS: Limits = Limits { warm_up: 1, least: 2, seconds: 60.0, prefetch: true };

/// Windows of an epoch where the real ones are not at hand.
const MADE_UP: u64 = 16;

/// What a probe is about.
pub struct Probe<'a> {
    /// The job.
    pub spec: &'a JobSpec,
    /// Its processes; one takes the steps.
    pub workers: u32,
    /// Micro-batches where there are no questions at hand.
    pub shape: MicroBatchShape,
    /// The padding token.
    pub pad_id: i32,
    /// What is known of the run.
    pub work: Option<Work>,
}

impl Probe<'_> {
    /// Takes one worker's share of some steps: of those over `features`, or over windows that are all as long as can be.
    ///
    /// # Errors
    /// Those of a step.
    pub fn take(&self, network: &mut Network, features: Option<Features>) -> Result<Time, TrainError> {
        let micro_batches = self.spec.micro_batches_per_step().div_ceil(self.workers as usize);
        let mut spec = self.spec.clone();
        (spec.resources.workers, spec.train.accumulate) = (1, micro_batches as u32);
        let real = features.is_some();
        let features = match features {
            Some(features) => features,
            None => {
                let windows = self.shape.windows * micro_batches as u64 * MADE_UP;
                let vocabulary = network.config().vocab_size as usize;
                Features::made_up(&vec![self.shape.tokens as usize; windows as usize], vocabulary, 1)?
            }
        };
        let lengths = features.lengths();
        let sampler = Sampler::new(&lengths, batch_size(&spec), micro_batches, spec.train.shuffle_seed)?;
        let set = TrainSet { features, sampler };
        let padded_to = computes_padding(network.device()).then_some(spec.data.pad_to_multiple as usize);
        let (steps, own_mean) = choose(&set, padded_to);
        let mean = if real { self.mean_of_slowest(&set.features, padded_to)? } else { own_mean };
        let timed = measure(&spec, network, (&set, self.pad_id), steps, LIMITS)?;
        let sum = |of: fn(&crate::measure::Measured) -> f64| timed.iter().map(of).sum::<f64>();
        let step_seconds = sum(|step| step.seconds) * mean / sum(|step| step.computed_tokens as f64).max(1.0);
        // Of the whole step, over all workers.
        let per_step =
            |of_run: fn(&Work) -> u64, of_step: fn(&crate::measure::Measured) -> f64| match &self.work {
                Some(work) => of_run(work) as f64 / work.steps as f64,
                None => {
                    sum(of_step) / timed.len().max(1) as f64 * self.spec.micro_batches_per_step() as f64
                        / micro_batches as f64
                }
            };
        Ok(Time {
            probed: timed.iter().map(|step| step.seconds).collect(),
            threads: tch::get_num_threads() as u64,
            step_seconds,
            run_seconds: self.work.map(|work| work.steps as f64 * step_seconds),
            examples_per_second: per_step(|work| work.examples, |step| step.examples as f64) / step_seconds,
            tokens_per_second: per_step(|work| work.tokens, |step| step.tokens as f64) / step_seconds,
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    /// Tokens that the worker with the most of them computes in a step, on average: the others wait for it.
    fn mean_of_slowest(&self, features: &Features, padded_to: Option<usize>) -> Result<f64, TrainError> {
        let spec = self.spec;
        let (per_step, seed) = (spec.micro_batches_per_step(), spec.train.shuffle_seed);
        let sampler = Sampler::new(&features.lengths(), batch_size(spec), per_step, seed)?;
        let steps = sampler.steps_per_epoch();
        let slowest = |step: usize| {
            let micro_batches = sampler.step(step).micro_batches;
            let of_rank = |rank: usize| {
                share(micro_batches.len(), rank, self.workers as usize)
                    .map(|number| computed(features, &micro_batches[number], padded_to))
                    .sum::<usize>()
            };
            (0..self.workers as usize).map(of_rank).max().unwrap_or(0)
        };
        Ok((0..steps).map(slowest).sum::<usize>() as f64 / steps as f64)
    }
}

/// Tokens of a micro-batch. Padding to the multiple counts where it is computed.
fn computed(features: &Features, windows: &[usize], padded_to: Option<usize>) -> usize {
    let lengths = windows.iter().map(|window| features.length(*window));
    match padded_to {
        Some(multiple) => windows.len() * lengths.max().unwrap_or(0).next_multiple_of(multiple.max(1)),
        None => lengths.sum(),
    }
}

/// Steps to take: the one with most tokens, then some that stand for all; and the mean of all steps' tokens.
fn choose(set: &TrainSet, padded_to: Option<usize>) -> (Vec<u64>, f64) {
    let mut steps: Vec<(usize, u64)> = (0..set.sampler.steps_per_epoch())
        .map(|step| {
            let micro_batches = set.sampler.step(step).micro_batches;
            let tokens =
                micro_batches.iter().map(|windows| computed(&set.features, windows, padded_to)).sum();
            (tokens, step as u64 + 1)
        })
        .collect();
    let mean = steps.iter().map(|(tokens, _)| *tokens as f64).sum::<f64>() / steps.len().max(1) as f64;
    steps.sort_unstable_by_key(|(tokens, step)| (Reverse(*tokens), *step));
    // The middles of equal parts, which may be the same step where there are few.
    let middles = (0..TIMED).map(|part| steps[(2 * part + 1) * steps.len() / (2 * TIMED)].1);
    let chosen = steps.first().map(|(_, step)| *step).into_iter().chain(middles);
    (chosen.collect(), mean)
}
