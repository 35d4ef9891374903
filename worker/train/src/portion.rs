//! A rank's share of an optimizer step, ready to be computed.
//!
//! Nothing here depends on weights, so portions can be made while other steps are computed ([`crate::prefetch`]). They
//! hold plain numbers, no tensors: libtorch would start threads of its own for whoever else calls it.

use std::time::Instant;

use squad_collective::{Background, Rows};
use squad_data::batch::collate;
use squad_data::sampler::share;
use squad_data::{Batch, Features};
use squad_model::Network;
use squad_proto::JobSpec;
use squad_proto::spec::EmbeddingGradients;

use crate::error::TrainError;
use crate::prepare::TrainSet;
use crate::touched::Table;

/// What one rank computes in one optimizer step.
#[derive(Clone, Debug)]
pub struct Portion {
    /// The step, counted from 1.
    pub step: u64,
    /// Examples of the whole step, over all ranks: the divisor of the loss.
    pub examples: usize,
    /// The rows of the word-embedding table that all ranks touch together, or all of its rows; `None` where the table
    /// is not trained. The same on all ranks.
    pub rows: Option<Rows>,
    /// This rank's micro-batches.
    pub micro_batches: Vec<Collated>,
    /// When making it began and ended.
    pub made: (Instant, Instant),
}

/// A micro-batch of a [`Portion`].
#[derive(Clone, Debug)]
pub struct Collated {
    /// Its number in the step, over all ranks.
    pub number: u64,
    /// Its windows, padded.
    pub batch: Batch,
    /// The rows of the word-embedding table that it touches, where only such rows are moved.
    pub rows: Option<Vec<u32>>,
}

/// Where a stepper gets its portions from.
pub trait Portions {
    /// The portion of step `step`, counted from 1. Steps are asked for in order, each once.
    ///
    /// # Errors
    /// What kept it from being made.
    fn portion(&mut self, step: u64) -> Result<Portion, TrainError>;
}

/// Makes one rank's portions.
#[derive(Clone, Debug)]
pub struct Collator {
    rank: usize,
    world: usize,
    pad_id: i32,
    pad_to_multiple: usize,
    table: Option<Table>,
    travel: EmbeddingGradients,
}

impl Collator {
    /// For this rank of `collective`, and the word embeddings of `network`.
    pub fn new(spec: &JobSpec, network: &Network, pad_id: i32, collective: &Background) -> Self {
        let trained = spec.train.freeze_layers == 0;
        Self {
            rank: collective.rank(),
            world: collective.world(),
            pad_id,
            pad_to_multiple: spec.data.pad_to_multiple as usize,
            table: Table::of(network).filter(|_| trained),
            travel: spec.comm.embedding_gradients,
        }
    }

    /// The portion of step `step`, counted from 1.
    ///
    /// # Errors
    /// Should not be possible: rows that do not ascend.
    pub fn portion(&self, set: &TrainSet, step: u64) -> Result<Portion, TrainError> {
        let begun = Instant::now();
        let plan = set.sampler.step(step as usize - 1);
        let chosen = |table: &Table| {
            touched_rows((table, self.travel), &set.features, (&plan.micro_batches, self.pad_id))
        };
        let rows = self.table.as_ref().map(chosen).transpose()?;
        let sparse = self.table.filter(|_| rows.as_ref().is_some_and(|rows| !rows.is_all()));
        let collated = |number: usize| {
            let indices = &plan.micro_batches[number];
            let batch = collate(&set.features, indices, self.pad_id, self.pad_to_multiple);
            let rows = sparse.map(|table| table.touched(batch.input_ids.iter().copied()));
            Collated { number: number as u64, batch, rows }
        };
        let micro_batches = share(plan.micro_batches.len(), self.rank, self.world).map(collated).collect();
        Ok(Portion { step, examples: plan.examples, rows, micro_batches, made: (begun, Instant::now()) })
    }
}

/// The rows of the word-embedding table that a step's micro-batches touch together, or all of its rows.
///
/// # Errors
/// Should not be possible: rows that do not ascend.
pub(crate) fn touched_rows(
    (table, travel): (&Table, EmbeddingGradients),
    features: &Features,
    (micro_batches, pad_id): (&[Vec<usize>], i32),
) -> Result<Rows, TrainError> {
    let all = Rows::all(table.rows, table.width);
    if travel == EmbeddingGradients::Dense {
        return Ok(all);
    }
    let touched = table.touched_by_step(features, micro_batches, pad_id);
    if travel == EmbeddingGradients::Auto && touched.len() == table.rows {
        return Ok(all);
    }
    Ok(Rows::some(table.rows, table.width, &touched)?)
}

/// Portions that are made when they are asked for.
#[derive(Debug)]
pub struct OnDemand<'a> {
    collator: Collator,
    set: &'a TrainSet,
}

impl<'a> OnDemand<'a> {
    /// Out of `set`.
    pub fn new(collator: Collator, set: &'a TrainSet) -> Self {
        Self { collator, set }
    }
}

impl Portions for OnDemand<'_> {
    fn portion(&mut self, step: u64) -> Result<Portion, TrainError> {
        self.collator.portion(self.set, step)
    }
}
