//! Summing gradients that lie on a device over all ranks.

use std::time::Duration;

use squad_collective::Background;
use tch::Tensor;

use crate::bucket::Bucket;
use crate::error::TrainError;

/// How gradients get to the other ranks.
#[derive(Debug)]
pub enum Exchange {
    /// There are none.
    Alone,
    /// Over the ring of the CPU, through a bucket on the host for each stage. The host waits for each stage's gradient.
    Ring(Vec<Bucket>),
}

/// What the reductions of one step cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time inside reductions.
    pub total: Duration,
    /// Time that the update waited for them.
    pub exposed: Duration,
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
        Ok(Self::Ring(buckets.collect::<Result<_, _>>()?))
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
            Self::Ring(buckets) => {
                buckets[stage].take_from(gradients)?;
                buckets[stage].launch(collective)
            }
        }
    }

    /// Makes the device go on with a stage's gradients only when they are summed.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn settle(&mut self, stage: usize, gradients: &Tensor) -> Result<Cost, TrainError> {
        match self {
            Self::Alone => Ok(Cost::default()),
            Self::Ring(buckets) => {
                let waiting = std::time::Instant::now();
                let reduction = buckets[stage].settle()?;
                buckets[stage].give_to(gradients)?;
                Ok(Cost { total: reduction.ended - reduction.started, exposed: waiting.elapsed() })
            }
        }
    }
}
