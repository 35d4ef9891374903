//! The stepper of the network's device.

use std::borrow::Cow;

use squad_collective::Background;
use squad_model::Network;
use squad_proto::JobSpec;
use tch::Device;

use crate::adamw::Moments;
use crate::device::{DeviceStepper, Exchange};
use crate::error::TrainError;
use crate::loss_scale::LossScale;
use crate::prepare::TrainSet;
use crate::schedule::Schedule;
use crate::step::{StepOutcome, Stepper};

/// Takes steps where the network is.
#[derive(Debug)]
pub enum Engine {
    /// On the CPU: gradients in memory that the ranks of a host share, one pass over memory to update.
    Host(Box<Stepper>),
    /// On a GPU.
    Device(Box<DeviceStepper>),
}

impl Engine {
    /// An engine at the start of a run. All ranks make theirs at the same time.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn new(
        spec: &JobSpec,
        network: &Network,
        pad_id: i32,
        schedule: Schedule,
        collective: &Background,
    ) -> Result<Self, TrainError> {
        Ok(match network.device() {
            Device::Cpu => Self::Host(Box::new(Stepper::new(spec, network, pad_id, schedule, collective)?)),
            _ => {
                let exchange = Exchange::over_ring(collective, &DeviceStepper::lens(network))?;
                Self::Device(Box::new(DeviceStepper::new(spec, network, pad_id, schedule, exchange)))
            }
        })
    }

    /// Takes optimizer step `step`, counted from 1; see [`Stepper::take`].
    ///
    /// # Errors
    /// When a rank is lost, or the numbers are no longer finite.
    pub fn take(
        &mut self,
        step: u64,
        network: &mut Network,
        set: &TrainSet,
        collective: &Background,
        stop: bool,
    ) -> Result<StepOutcome, TrainError> {
        match self {
            Self::Host(stepper) => stepper.take(step, network, set, collective, stop),
            Self::Device(stepper) => stepper.take(step, network, set, collective, stop),
        }
    }

    /// The loss scale as it stands after the last step.
    pub fn loss_scale(&self) -> LossScale {
        match self {
            Self::Host(stepper) => stepper.loss_scale(),
            Self::Device(stepper) => stepper.loss_scale(),
        }
    }

    /// The optimizer's moments, stage by stage; those of a device are copied to the host.
    pub fn moments(&self) -> Cow<'_, [Moments]> {
        match self {
            Self::Host(stepper) => Cow::Borrowed(stepper.moments()),
            Self::Device(stepper) => Cow::Owned(stepper.moments()),
        }
    }

    /// Goes on with what a checkpoint knows: moments, which are those of this network, and the loss scale.
    pub fn go_on(&mut self, moments: Vec<Moments>, loss_scale: LossScale) {
        match self {
            Self::Host(stepper) => stepper.go_on(moments, loss_scale),
            Self::Device(stepper) => stepper.go_on(&moments, loss_scale),
        }
    }
}
