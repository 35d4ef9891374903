//! One optimizer step on a device.

use std::time::{Duration, Instant};

use squad_collective::Background;
use squad_model::dropout::mix;
use squad_model::network::Dropout;
use squad_model::{LossForm, Network};
use squad_proto::JobSpec;
use tch::{Device, Kind, Tensor};

use super::adamw::{DeviceMoments, update};
use super::exchange::{Cost, Exchange};
use crate::adamw::{AdamW, Moments};
use crate::backward::{LossScalars, Recipe, walk_unread};
use crate::error::TrainError;
use crate::header::StepHeader;
use crate::loss_scale::LossScale;
use crate::portion::{Collated, Portion, Portions};
use crate::room::Room;
use crate::schedule::Schedule;
use crate::step::{StepOutcome, classifier_dropout, finite, layer_factor, micro_batch, next};
use crate::trace::{Activity, Trace};

/// Everything that changes from step to step, besides the weights.
#[derive(Debug)]
pub struct DeviceStepper {
    /// First, so that it is dropped before the memory that it may still be at work in.
    exchange: Exchange,
    /// Flat gradients of each stage; the step's header rides behind the head's. Empty where a stage is frozen.
    gradients: Vec<Tensor>,
    moments: Vec<DeviceMoments>,
    factors: Vec<f64>,
    first_trainable: usize,
    optimizer: AdamW,
    schedule: Schedule,
    loss_scale: LossScale,
    max_grad_norm: f64,
    dropout: Dropout,
    seed: u64,
    recompute: bool,
    room: Room,
    device: Device,
}

/// Sums over a step's micro-batches, on the device as far as they are losses.
struct Sums {
    losses: [Tensor; 3],
    counts: StepHeader,
}

impl DeviceStepper {
    /// How many floats of each stage are summed over ranks, header included; in the order of stages.
    pub fn lens(network: &Network) -> Vec<usize> {
        let head = network.stages().len() - 1;
        let len = |(k, stage): (usize, &squad_model::Stage)| {
            stage.len() + if k == head { StepHeader::LEN } else { 0 }
        };
        network.stages().iter().enumerate().map(len).collect()
    }

    /// A stepper at the start of a run on the network's device.
    pub fn new(spec: &JobSpec, network: &Network, schedule: Schedule, exchange: Exchange) -> Self {
        let (head, device, train) = (network.stages().len() - 1, network.device(), &spec.train);
        let first_trainable = if train.freeze_layers == 0 { 0 } else { train.freeze_layers as usize + 1 };
        let zeros = |(k, len): (usize, usize)| {
            let len = if k < first_trainable { 0 } else { len as i64 };
            Tensor::zeros([len], (Kind::Float, device))
        };
        Self {
            gradients: Self::lens(network).into_iter().enumerate().map(zeros).collect(),
            moments: network.stages().iter().map(|stage| DeviceMoments::new(stage.len(), device)).collect(),
            exchange,
            factors: (0..=head).map(|stage| layer_factor(train.layerwise_decay, stage, head)).collect(),
            first_trainable,
            optimizer: AdamW::new(train),
            schedule,
            loss_scale: LossScale::new(train.dtype),
            max_grad_norm: train.max_grad_norm,
            dropout: network.dropout(train.dropout, classifier_dropout(train)),
            seed: train.seed,
            recompute: train.recompute,
            room: Room::default(),
            device,
        }
    }

    /// Takes another loss scale than the number format's first one.
    pub fn set_loss_scale(&mut self, loss_scale: LossScale) {
        self.loss_scale = loss_scale;
    }

    /// The loss scale as it stands after the last step.
    pub fn loss_scale(&self) -> LossScale {
        self.loss_scale
    }

    /// How gradients get to the other ranks.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Copies of the optimizer's moments on the host, stage by stage.
    pub fn moments(&self) -> Vec<Moments> {
        self.moments.iter().map(DeviceMoments::to_host).collect()
    }

    /// Goes on with what a checkpoint knows.
    pub fn go_on(&mut self, moments: &[Moments], loss_scale: LossScale) {
        self.moments = moments.iter().map(|both| DeviceMoments::from_host(both, self.device)).collect();
        self.loss_scale = loss_scale;
    }

    /// Takes optimizer step `step`, counted from 1; see [`crate::step::Stepper::take`].
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
        let (header, grad_norm, cost) = loop {
            collate += self.compute(&portion, network, (collective, trace), stop)?;
            let wait = trace.span(Activity::Wait(self.gradients.len() - 1));
            let (header, grad_norm, cost) = self.reduce()?;
            drop(wait);
            finite("loss", header.mean_loss(), step)?;
            if grad_norm.is_finite() {
                break (header, grad_norm, cost);
            }
            // Every rank has the same sums, so every rank comes to the same decision.
            if !self.loss_scale.overflow() {
                finite("gradient norm", grad_norm, step)?;
            }
            overflows += 1;
        };
        let loss_scale = self.loss_scale.scale();
        let optimizer = trace.span(Activity::Optimizer);
        self.update(step, network, grad_norm);
        drop(optimizer);
        self.loss_scale.succeed();
        Ok(StepOutcome {
            header,
            learning_rate: self.schedule.rate(step),
            grad_norm,
            loss_scale,
            overflows,
            allreduce: cost.total,
            exposed: cost.exposed,
            collate,
            bytes: self.gradients.iter().map(|all| 4 * all.numel() as u64).sum(),
            marks: Vec::new(),
        })
    }

    /// Computes this rank's share of the gradients and sends every stage's on its way. Gives how long making tensors
    /// took.
    fn compute(
        &mut self,
        portion: &Portion,
        network: &Network,
        (collective, trace): (&Background, &Trace<'_>),
        stop: bool,
    ) -> Result<Duration, TrainError> {
        let head = self.gradients.len() - 1;
        let zero = || Tensor::zeros([], (Kind::Double, self.device));
        let mut sums = Sums {
            losses: [zero(), zero(), zero()],
            counts: StepHeader { stop_votes: u64::from(stop), ..StepHeader::default() },
        };
        let mut tensors_took = Duration::ZERO;
        let mut begun = vec![false; self.gradients.len()];
        for (turn, Collated { number, batch, .. }) in portion.micro_batches.iter().enumerate() {
            sums.counts.examples += batch.rows as u64;
            sums.counts.tokens += batch.real_tokens() as u64;
            sums.counts.padded_tokens += (batch.rows * batch.width) as u64;
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
            let (gradients, exchange) = (&self.gradients, &mut self.exchange);
            let with_pieces = sums.counts.in_pieces + 1;
            self.room.in_pieces(batch, |piece| {
                let collating = (Instant::now(), trace.span(Activity::Collate));
                let tensors = micro_batch(&piece.of(batch, true), self.device);
                tensors_took += collating.0.elapsed();
                drop(collating);
                if !piece.is_whole() {
                    sums.counts.in_pieces = with_pieces;
                }
                let recipe = Recipe { first_row: piece.first_row(), ..recipe };
                let mut take = |stage: usize, found: Vec<Tensor>, loss: &LossScalars| {
                    let into = gradients[stage].narrow(0, 0, network.stages()[stage].len() as i64);
                    let add = std::mem::replace(&mut begun[stage], true);
                    network.stages()[stage].collect_gradients(&found, &into, add);
                    if stage == head {
                        sums.add(loss);
                        sums.write(&header_of(&gradients[head]));
                    }
                    if last && piece.is_last() {
                        exchange.launch(stage, &gradients[stage], collective)?;
                    }
                    Ok(())
                };
                walk_unread(network, &tensors, &recipe, trace, |stage, found, loss| {
                    piece.take(stage, || take(stage, found, loss))
                })
            })?;
        }
        if portion.micro_batches.is_empty() {
            // A rank without work in this step still takes part in every reduction.
            for stage in (self.first_trainable..=head).rev() {
                drop(self.gradients[stage].zero_());
                if stage == head {
                    sums.write(&header_of(&self.gradients[head]));
                }
                self.exchange.launch(stage, &self.gradients[stage], collective)?;
            }
        }
        Ok(tensors_took)
    }

    /// Has the device wait for the sums, and reads the header and the norm of the averaged gradient: the one time in a step
    /// that the host waits for the device.
    fn reduce(&mut self) -> Result<(StepHeader, f64, Cost), TrainError> {
        for stage in (self.first_trainable..self.gradients.len()).rev() {
            self.exchange.settle(stage, &self.gradients[stage])?;
        }
        let head = self.gradients.len() - 1;
        let header = header_of(&self.gradients[head]);
        let norms: Vec<Tensor> = (self.first_trainable..=head)
            .map(|stage| {
                let company = if stage == head { StepHeader::LEN as i64 } else { 0 };
                let all = &self.gradients[stage];
                all.narrow(0, 0, all.size()[0] - company).norm()
            })
            .collect();
        let told = Tensor::cat(&[header, Tensor::stack(&norms, 0)], 0);
        let mut values = vec![0.0f32; told.numel()];
        let count = values.len();
        let copied = told.f_copy_data(&mut values, count);
        // What broke the exchange says more than what the device makes of it.
        let cost = self.exchange.finish()?;
        copied.map_err(squad_model::ModelError::from)?;
        let (header, norms) = values.split_at(StepHeader::LEN);
        let squares: f64 = norms.iter().map(|norm| f64::from(*norm).powi(2)).sum();
        Ok((StepHeader::read(header), squares.sqrt() / self.loss_scale.scale(), cost))
    }

    /// Divides by the loss scale, clips the averaged gradient and updates all trainable stages.
    fn update(&mut self, step: u64, network: &mut Network, grad_norm: f64) {
        let clip = self.max_grad_norm > 0.0 && grad_norm > self.max_grad_norm;
        let clipping = if clip { self.max_grad_norm / grad_norm } else { 1.0 };
        let scale = clipping / self.loss_scale.scale();
        for stage in self.first_trainable..self.gradients.len() {
            let rate = self.schedule.rate(step) * self.factors[stage];
            let target = &mut network.stages_mut()[stage];
            let gradients = self.gradients[stage].narrow(0, 0, target.len() as i64);
            update(&self.optimizer, target, &mut self.moments[stage], &gradients, scale, (rate, step));
        }
    }
}

/// The floats behind the head's gradients.
fn header_of(head: &Tensor) -> Tensor {
    let len = StepHeader::LEN as i64;
    head.narrow(0, head.size()[0] - len, len)
}

impl Sums {
    fn add(&mut self, loss: &LossScalars) {
        let parts = [Some(&loss.total), Some(&loss.span), loss.answerability.as_ref()];
        for (sum, part) in self.losses.iter_mut().zip(parts) {
            if let Some(part) = part {
                *sum += part.to_kind(Kind::Double);
            }
        }
    }

    /// Writes what [`StepHeader::write`] writes, of which the device knows the losses and the host the rest.
    fn write(&self, to: &Tensor) {
        let mut counts = [0.0f32; StepHeader::LEN];
        self.counts.write(&mut counts);
        let mut losses = to.narrow(0, 0, 3);
        losses.copy_(&Tensor::stack(&self.losses, 0));
        for (place, count) in counts.iter().enumerate().skip(3) {
            // A number, not a tensor: it goes along with the kernel.
            drop(to.narrow(0, place as i64, 1).fill_(f64::from(*count)));
        }
    }
}
