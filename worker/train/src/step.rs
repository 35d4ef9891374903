//! One optimizer step.

use std::time::{Duration, Instant};

use squad_collective::Background;
use squad_model::dropout::mix;
use squad_model::network::Dropout;
use squad_model::{Inputs, LossForm, Network, Targets};
use squad_proto::JobSpec;
use squad_proto::spec::Train;
use tch::{Device, Tensor};

use crate::adamw::{AdamW, Moments, sum_of_squares};
use crate::backward::{LossSums, MicroBatch, Recipe, walk};
use crate::bucket::{Bucket, Reduction};
use crate::error::TrainError;
use crate::header::StepHeader;
use crate::loss_scale::LossScale;
use crate::portion::{Collated, Portion, Portions};
use crate::room::Room;
use crate::schedule::Schedule;
use crate::touched::Table;
use crate::trace::{Activity, Trace};

/// Everything that changes from step to step, besides the weights.
#[derive(Debug)]
pub struct Stepper {
    buckets: Vec<Bucket>,
    moments: Vec<Moments>,
    /// Factor on the learning rate, stage by stage.
    factors: Vec<f64>,
    first_trainable: usize,
    /// The word-embedding table.
    table: Option<Table>,
    optimizer: AdamW,
    schedule: Schedule,
    loss_scale: LossScale,
    max_grad_norm: f64,
    dropout: Dropout,
    seed: u64,
    recompute: bool,
    room: Room,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// Sums over all ranks.
    pub header: StepHeader,
    /// The learning rate of the head.
    pub learning_rate: f64,
    /// Norm of the averaged gradient before clipping.
    pub grad_norm: f64,
    /// The factor on the loss that the gradients were computed with.
    pub loss_scale: f64,
    /// How often the step was computed in vain, with a larger factor.
    pub overflows: u32,
    /// Time spent inside all-reduces.
    pub allreduce: Duration,
    /// Time that this rank waited for all-reduces after its own backward pass.
    pub exposed: Duration,
    /// Time that this rank waited for its batches, and made tensors of them.
    pub collate: Duration,
    /// Bytes of gradients that were summed over the ranks.
    pub bytes: u64,
    /// When each stage's gradient was known and reduced, from the head down.
    pub marks: Vec<StageMark>,
}

/// When things happened to one stage's gradient.
#[derive(Clone, Copy, Debug)]
pub struct StageMark {
    /// The stage.
    pub stage: usize,
    /// When this rank's gradient was complete.
    pub computed: Instant,
    /// When it was reduced.
    pub reduction: Reduction,
}

impl Stepper {
    /// A stepper at the start of a run, whose gradients `collective` will sum. All ranks make theirs at the
    /// same time.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn new(
        spec: &JobSpec,
        network: &Network,
        schedule: Schedule,
        collective: &Background,
    ) -> Result<Self, TrainError> {
        let head = network.stages().len() - 1;
        let buckets = network
            .stages()
            .iter()
            .enumerate()
            .map(|(k, stage)| {
                let company = if k == head { StepHeader::LEN } else { 0 };
                Bucket::reduced_by(collective, stage.len(), company)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let train = &spec.train;
        let first_trainable = if train.freeze_layers == 0 { 0 } else { train.freeze_layers as usize + 1 };
        Ok(Self {
            buckets,
            moments: network.stages().iter().map(|stage| Moments::new(stage.len())).collect(),
            factors: (0..=head).map(|stage| layer_factor(train.layerwise_decay, stage, head)).collect(),
            first_trainable,
            table: Table::of(network),
            optimizer: AdamW::new(train),
            schedule,
            loss_scale: LossScale::new(train.dtype),
            max_grad_norm: train.max_grad_norm,
            dropout: network.dropout(train.dropout, classifier_dropout(train)),
            seed: train.seed,
            recompute: train.recompute,
            room: Room::default(),
        })
    }

    /// Takes another loss scale than the number format's first one.
    pub fn set_loss_scale(&mut self, loss_scale: LossScale) {
        self.loss_scale = loss_scale;
    }

    /// The loss scale as it stands after the last step.
    pub fn loss_scale(&self) -> LossScale {
        self.loss_scale
    }

    /// The optimizer's moments, stage by stage.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Goes on with what a checkpoint knows: moments, which are those of this network, and the loss scale.
    pub fn go_on(&mut self, moments: Vec<Moments>, loss_scale: LossScale) {
        self.moments = moments;
        self.loss_scale = loss_scale;
    }

    /// Takes optimizer step `step`, counted from 1. A step whose gradients overflow is computed again with
    /// half the loss scale, on the same examples: neither the schedule nor the order of the data moves.
    ///
    /// # Errors
    /// When a rank is lost, or the numbers are no longer finite.
    pub fn take(
        &mut self,
        step: u64,
        network: &mut Network,
        portions: &mut dyn Portions,
        (collective, trace): (&Background, &Trace<'_>),
        stop: bool,
    ) -> Result<StepOutcome, TrainError> {
        trace.set_step(step);
        let _step = trace.span(Activity::Step);
        let (portion, mut collate) = next(step, portions, trace)?;
        let mut overflows = 0;
        let reduced = loop {
            let reduced = self.reduce(&portion, network, (collective, trace), stop)?;
            collate += reduced.tensors;
            finite("loss", reduced.header.mean_loss(), step)?;
            if reduced.grad_norm.is_finite() {
                break reduced;
            }
            // Every rank has the same sums, so every rank comes to the same decision.
            if !self.loss_scale.overflow() {
                finite("gradient norm", reduced.grad_norm, step)?;
            }
            overflows += 1;
        };
        let loss_scale = self.loss_scale.scale();
        let optimizer = trace.span(Activity::Optimizer);
        self.update(step, network, reduced.grad_norm)?;
        drop(optimizer);
        self.loss_scale.succeed();
        let Reduced { header, grad_norm, exposed, bytes, marks, .. } = reduced;
        Ok(StepOutcome {
            header,
            learning_rate: self.schedule.rate(step),
            grad_norm,
            loss_scale,
            overflows,
            allreduce: marks.iter().map(|m| m.reduction.ended - m.reduction.started).sum(),
            exposed,
            collate,
            bytes,
            marks,
        })
    }

    /// Computes the gradients of a step and waits until they are summed over all ranks.
    fn reduce(
        &mut self,
        portion: &Portion,
        network: &Network,
        (collective, trace): (&Background, &Trace<'_>),
        stop: bool,
    ) -> Result<Reduced, TrainError> {
        let Computed { stages, bytes, tensors } =
            self.gradients(portion, network, (collective, trace), stop)?;
        let waiting = Instant::now();
        let mut marks = Vec::with_capacity(stages.len());
        let mut squares = 0.0;
        for (stage, computed) in stages {
            let wait = trace.span(Activity::Wait(stage));
            let reduction = self.buckets[stage].settle()?;
            drop(wait);
            trace.reduced(stage, reduction);
            let _norm = trace.span(Activity::Norm(stage));
            squares += sum_of_squares(self.buckets[stage].gradients()?);
            marks.push(StageMark { stage, computed, reduction });
        }
        let exposed =
            marks.last().map_or(Duration::ZERO, |m| m.reduction.ended.saturating_duration_since(waiting));
        let header = StepHeader::read(self.head()?.company()?);
        let grad_norm = squares.sqrt() / self.loss_scale.scale();
        Ok(Reduced { header, grad_norm, exposed, tensors, bytes, marks })
    }

    fn head(&mut self) -> Result<&mut Bucket, TrainError> {
        self.buckets.last_mut().ok_or_else(|| TrainError::Internal("a network without stages".into()))
    }

    /// Computes this rank's share of the gradients and launches every bucket's reduction.
    fn gradients(
        &mut self,
        portion: &Portion,
        network: &Network,
        (collective, trace): (&Background, &Trace<'_>),
        stop: bool,
    ) -> Result<Computed, TrainError> {
        let head = self.buckets.len() - 1;
        let mut header = StepHeader { stop_votes: u64::from(stop), ..StepHeader::default() };
        let mut computed = Vec::with_capacity(self.buckets.len());
        let rows_of = |stage: usize| portion.rows.as_ref().filter(|_| stage == 0);
        let mut tensors_took = Duration::ZERO;
        let mut begun = vec![false; self.buckets.len()];
        let buckets = &mut self.buckets;
        for (turn, Collated { number, batch, rows }) in portion.micro_batches.iter().enumerate() {
            header.examples += batch.rows as u64;
            header.tokens += batch.real_tokens() as u64;
            header.padded_tokens += (batch.rows * batch.width) as u64;
            let recipe = Recipe {
                dropout: self.dropout,
                seed: mix(&[self.seed, portion.step, *number]),
                first_row: 0,
                first_trainable: self.first_trainable,
                divisor: portion.examples as f64 / self.loss_scale.scale(),
                form: LossForm::Masked,
                recompute: self.recompute,
            };
            let last = turn + 1 == portion.micro_batches.len();
            let own = self.table.as_ref().zip(rows.as_deref());
            let with_pieces = header.in_pieces + 1;
            self.room.in_pieces(batch, |piece| {
                let collating = (Instant::now(), trace.span(Activity::Collate));
                let tensors = micro_batch(&piece.of(batch, true), Device::Cpu);
                tensors_took += collating.0.elapsed();
                drop(collating);
                if !piece.is_whole() {
                    header.in_pieces = with_pieces;
                }
                let recipe = Recipe { first_row: piece.first_row(), ..recipe };
                let mut take = |stage: usize, gradients: Vec<Tensor>, loss: &LossSums| {
                    let (bucket, add) = (&mut buckets[stage], std::mem::replace(&mut begun[stage], true));
                    match own {
                        Some(own) if stage == 0 => {
                            bucket.collect_rows(&network.stages()[0], &gradients, add, own)?;
                        }
                        _ => bucket.collect(&network.stages()[stage], &gradients, add)?,
                    }
                    if stage == head {
                        header.loss += loss.total;
                        header.span += loss.span;
                        header.answerability += loss.answerability;
                        header.write(bucket.company()?);
                    }
                    if last && piece.is_last() {
                        computed.push((stage, Instant::now()));
                        bucket.launch(collective, rows_of(stage))?;
                    }
                    Ok(())
                };
                walk(network, &tensors, &recipe, trace, |stage, gradients, loss| {
                    piece.take(stage, || take(stage, gradients, loss))
                })
                .map(drop)
            })?;
        }
        if portion.micro_batches.is_empty() {
            // A rank without work in this step still takes part in every reduction.
            for stage in (self.first_trainable..=head).rev() {
                let bucket = &mut self.buckets[stage];
                bucket.values_mut()?.fill(0.0);
                if stage == head {
                    header.write(bucket.company()?);
                }
                computed.push((stage, Instant::now()));
                bucket.launch(collective, rows_of(stage))?;
            }
        }
        let reduced = self.buckets.iter().enumerate().skip(self.first_trainable);
        let bytes = reduced.map(|(stage, bucket)| bucket.bytes(rows_of(stage))).sum::<u64>();
        let bytes = if collective.world() == 1 { 0 } else { bytes };
        Ok(Computed { stages: computed, bytes, tensors: tensors_took })
    }

    /// Divides by the loss scale, clips the averaged gradient and updates all trainable stages.
    fn update(&mut self, step: u64, network: &mut Network, grad_norm: f64) -> Result<(), TrainError> {
        let clip = self.max_grad_norm > 0.0 && grad_norm > self.max_grad_norm;
        let clipping = if clip { self.max_grad_norm / grad_norm } else { 1.0 };
        let scale = clipping / self.loss_scale.scale();
        for stage in self.first_trainable..self.buckets.len() {
            let rate = self.schedule.rate(step) * self.factors[stage];
            self.optimizer.update(
                &mut network.stages_mut()[stage],
                &mut self.moments[stage],
                self.buckets[stage].gradients()?,
                scale,
                (rate, step),
            )?;
        }
        Ok(())
    }
}

/// This rank's gradients are in the buckets, which are being reduced.
struct Computed {
    /// The stages from the head down, with the time at which each was complete.
    stages: Vec<(usize, Instant)>,
    /// Bytes that are reduced.
    bytes: u64,
    /// Time that making tensors took.
    tensors: Duration,
}

/// The gradients of all ranks, as far as they are not in the buckets.
struct Reduced {
    header: StepHeader,
    grad_norm: f64,
    exposed: Duration,
    tensors: Duration,
    bytes: u64,
    marks: Vec<StageMark>,
}

pub(crate) fn classifier_dropout(train: &Train) -> f64 {
    // `dropout: 0` means none at all, so that parity runs need one field.
    if train.dropout == Some(0.0) { 0.0 } else { train.classifier_dropout }
}

/// Layer-wise decay after ELECTRA's fine-tuning: with L layers, embeddings get d^(L+2), layer k d^(L+1-k),
/// the head 1.
pub(crate) fn layer_factor(decay: Option<f64>, stage: usize, head: usize) -> f64 {
    match decay {
        Some(decay) if stage < head => decay.powi((head + 1 - stage) as i32),
        _ => 1.0,
    }
}

pub(crate) fn finite(what: &'static str, value: f64, step: u64) -> Result<(), TrainError> {
    if value.is_finite() { Ok(()) } else { Err(TrainError::NotFinite { what, value, step }) }
}

/// Waits for the batches of a step; gives how long that took, too.
pub(crate) fn next(
    step: u64,
    portions: &mut dyn Portions,
    trace: &Trace<'_>,
) -> Result<(Portion, Duration), TrainError> {
    let asked = Instant::now();
    let wait = trace.span(Activity::Collate);
    let portion = portions.portion(step)?;
    drop(wait);
    trace.collated(portion.made);
    Ok((portion, asked.elapsed()))
}

/// A batch as tensors on `device`, on the CPU without its padding in the encoder's layers.
pub fn micro_batch(batch: &squad_data::Batch, device: Device) -> MicroBatch {
    let squad_data::Batch { lengths, input_ids, token_type_ids, allowed, .. } = batch;
    MicroBatch {
        inputs: Inputs::new(lengths, input_ids, token_type_ids, allowed, device).packed(),
        targets: Targets::new(&batch.starts, &batch.ends, &batch.impossible, device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_factors_are_the_replaced_programs() {
        // L = 12, d = 0.8: embeddings 0.8^14, layer 0 0.8^13, layer 11 0.8^2, head 1.
        let factor = |stage| layer_factor(Some(0.8), stage, 13);
        for (stage, power) in [(0, 14), (1, 13), (12, 2)] {
            assert!((factor(stage) - 0.8f64.powi(power)).abs() < 1e-12);
        }
        assert_eq!(factor(13), 1.0);
        assert_eq!(layer_factor(None, 0, 13), 1.0);
    }
}
