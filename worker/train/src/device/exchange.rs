//! Summing gradients that lie on a device over all ranks.

use std::time::{Duration, Instant};

use squad_collective::Background;
#[cfg(feature = "nccl")]
use squad_collective::nccl::{Communicator, Mark, Reducing};
use tch::Tensor;

use crate::bucket::Bucket;
#[cfg(feature = "nccl")]
use crate::bucket::device_buffer;
use crate::error::TrainError;

/// How gradients get to the other ranks.
#[derive(Debug)]
pub enum Exchange {
    /// There are none.
    Alone,
    /// Over the ring of the CPU, through a bucket on the host for each stage. The host waits for each stage's gradient.
    Ring(OverRing),
    /// From GPU to GPU. The host does not wait.
    #[cfg(feature = "nccl")]
    Nccl(Box<OverNccl>),
}

/// What the reductions of one step cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time inside reductions.
    pub total: Duration,
    /// Time that the update waited for them.
    pub exposed: Duration,
}

/// Buckets on the host.
#[derive(Debug)]
pub struct OverRing {
    buckets: Vec<Bucket>,
    cost: Cost,
}

/// NCCL's communicator and what it is doing.
#[cfg(feature = "nccl")]
#[derive(Debug)]
pub struct OverNccl {
    communicator: Communicator,
    reducing: Vec<Option<Reducing>>,
    /// The end of this step's backward pass.
    computed: Option<Mark>,
    /// Beginning and end of this step's reductions.
    spans: Vec<(Mark, Mark)>,
}

impl Exchange {
    /// Over the ring of the CPU, for stages whose flat gradients have `lens` elements, company included. All ranks call it
    /// at the same time.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn over_ring(collective: &Background, lens: &[usize]) -> Result<Self, TrainError> {
        if collective.world() == 1 {
            return Ok(Self::Alone);
        }
        let buckets = lens.iter().map(|len| Bucket::reduced_by(collective, *len, 0));
        Ok(Self::Ring(OverRing { buckets: buckets.collect::<Result<_, _>>()?, cost: Cost::default() }))
    }

    /// By NCCL, for `stages` stages on the communicator's GPU.
    #[cfg(feature = "nccl")]
    pub fn over_nccl(communicator: Communicator, stages: usize) -> Self {
        let reducing = (0..stages).map(|_| None).collect();
        Self::Nccl(Box::new(OverNccl { communicator, reducing, computed: None, spans: Vec::new() }))
    }

    /// What carries the bytes, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Alone => "nothing".into(),
            Self::Ring(_) => "the CPU's ring".into(),
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => format!("NCCL {}", nccl.communicator.version()),
        }
    }

    /// Sends a stage's gradients on their way. They are not touched until [`Self::settle`].
    ///
    /// # Errors
    /// What broke the collective.
    pub fn launch(
        &mut self,
        stage: usize,
        gradients: &Tensor,
        collective: &Background,
    ) -> Result<(), TrainError> {
        match self {
            Self::Alone => Ok(()),
            Self::Ring(ring) => {
                ring.buckets[stage].take_from(gradients)?;
                ring.buckets[stage].launch(collective, None)
            }
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => {
                if nccl.spans.is_empty()
                    && nccl.reducing.iter().all(Option::is_none)
                    && collective.world() > 1
                {
                    // The step's first: a peer that dies in this step breaks the ring at once.
                    nccl.communicator.watch(collective.all_reduce(vec![0.0], 1));
                }
                let buffer = device_buffer(gradients)?;
                nccl.reducing[stage] = Some(nccl.communicator.all_reduce(buffer)?);
                Ok(())
            }
        }
    }

    /// Makes the device go on with a stage's gradients only when they are summed.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn settle(&mut self, stage: usize, gradients: &Tensor) -> Result<(), TrainError> {
        match self {
            Self::Alone => Ok(()),
            Self::Ring(ring) => {
                let waiting = Instant::now();
                let reduction = ring.buckets[stage].settle()?;
                ring.buckets[stage].give_to(gradients)?;
                ring.cost.total += reduction.ended - reduction.started;
                ring.cost.exposed += waiting.elapsed();
                Ok(())
            }
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => {
                if nccl.computed.is_none() {
                    nccl.computed = Some(nccl.communicator.mark()?);
                }
                if let Some(reducing) = nccl.reducing[stage].take() {
                    nccl.spans.push(nccl.communicator.settle(&reducing)?);
                }
                Ok(())
            }
        }
    }

    /// To be called once the host has waited for the device: whether what it computed may be believed, and what this step's
    /// reductions cost.
    ///
    /// # Errors
    /// What broke the collective meanwhile.
    pub fn finish(&mut self) -> Result<Cost, TrainError> {
        match self {
            Self::Alone => Ok(Cost::default()),
            Self::Ring(ring) => Ok(std::mem::take(&mut ring.cost)),
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => {
                nccl.communicator.check()?;
                let (spans, computed) = (std::mem::take(&mut nccl.spans), nccl.computed.take());
                let exposed =
                    computed.zip(spans.last()).and_then(|(computed, (_, done))| done.since(&computed));
                let total = spans.iter().filter_map(|(began, done)| done.since(began)).sum();
                Ok(Cost { total, exposed: exposed.unwrap_or_default() })
            }
        }
    }
}
