//! The stepper of the network's device.

use std::borrow::Cow;

use squad_collective::Background;
#[cfg(feature = "nccl")]
use squad_collective::nccl::{Communicator, Options};
use squad_model::Network;
use squad_proto::JobSpec;
use squad_proto::spec::{Backend, Compression};
use tch::Device;

use crate::adamw::Moments;
use crate::device::{DeviceStepper, Exchange};
use crate::error::TrainError;
use crate::loss_scale::LossScale;
use crate::portion::Portions;
use crate::schedule::Schedule;
use crate::step::{StepOutcome, Stepper};
use crate::trace::Trace;

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
        schedule: Schedule,
        collective: &Background,
    ) -> Result<Self, TrainError> {
        Ok(match network.device() {
            Device::Cpu => Self::Host(Box::new(Stepper::new(spec, network, schedule, collective)?)),
            device => {
                let exchange = exchange(spec, network, device, collective)?;
                Self::Device(Box::new(DeviceStepper::new(spec, network, schedule, exchange)))
            }
        })
    }

    /// What carries the gradients to the other ranks, for people.
    pub fn carrier(&self, collective: &Background) -> String {
        match self {
            Self::Host(_) => collective.transport().into(),
            Self::Device(stepper) => stepper.exchange().name(),
        }
    }

    /// Takes optimizer step `step`, counted from 1; see [`Stepper::take`].
    ///
    /// # Errors
    /// When a rank is lost, or the numbers are no longer finite.
    pub fn take(
        &mut self,
        step: u64,
        network: &mut Network,
        portions: &mut dyn Portions,
        who: (&Background, &Trace<'_>),
        stop: bool,
    ) -> Result<StepOutcome, TrainError> {
        match self {
            Self::Host(stepper) => stepper.take(step, network, portions, who, stop),
            Self::Device(stepper) => stepper.take(step, network, portions, who, stop),
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

/// What `comm.backend` asks for, on a device that is no CPU.
fn exchange(
    spec: &JobSpec,
    network: &Network,
    device: Device,
    collective: &Background,
) -> Result<Exchange, TrainError> {
    agree_on_device(device, collective)?;
    let wants_nccl = match spec.comm.backend {
        // A 16-bit wire is the ring's.
        Backend::Auto => collective.world() > 1 && spec.comm.compression == Compression::None,
        Backend::Nccl => true,
        _ => false,
    };
    match device {
        #[cfg(feature = "nccl")]
        Device::Cuda(index) if wants_nccl => {
            let patience = std::time::Duration::from_secs_f64(spec.fault.patience_s);
            let options = Options {
                device: index,
                patience: squad_proto::Deadlines::from_patience(patience).collective,
                libraries: squad_cuda::Places::of_process().beside("nccl", "libnccl.so.2"),
            };
            let communicator = Communicator::join(options, collective)?;
            Ok(Exchange::over_nccl(communicator, network.stages().len()))
        }
        #[cfg(not(feature = "nccl"))]
        _ if wants_nccl => Err(TrainError::Device(
            "this squad-worker was built without the feature nccl; set comm.backend: ring".into(),
        )),
        _ => Exchange::over_ring(collective, &DeviceStepper::lens(network)),
    }
}

/// Checks that all ranks compute on GPUs where this one does: the others would wait for NCCL, or it for them.
fn agree_on_device(device: Device, collective: &Background) -> Result<(), TrainError> {
    let all: Vec<bool> = crate::evaluate::gather(collective, &[device.is_cuda()])?;
    match all.iter().position(|on_gpu| *on_gpu != device.is_cuda()) {
        None => Ok(()),
        Some(rank) => {
            let word = |cuda: bool| if cuda { "a GPU" } else { "a CPU" };
            Err(TrainError::Device(format!(
                "rank {} computes on {}, rank {rank} on {}; set resources.device to cpu or cuda, so that all do the same",
                collective.rank(),
                word(device.is_cuda()),
                word(!device.is_cuda())
            )))
        }
    }
}
