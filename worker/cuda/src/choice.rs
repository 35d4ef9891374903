//! Which device a worker gets.

use crate::driver::Driver;
use crate::error::DeviceError;
use crate::libraries::Places;
use crate::load::load;

/// What the job asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A GPU where there is one that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

/// What a worker computes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The CPU; with what should be said of a GPU that is there and cannot be used.
    Cpu(Option<String>),
    /// This GPU, by the driver's number. The CUDA libraries are loaded.
    Cuda {
        /// The driver's number.
        index: usize,
        /// How many the driver shows.
        visible: usize,
        /// `libtorch_cuda.so` is in it.
        folder: std::path::PathBuf,
    },
}

/// Chooses the device of the worker that is number `local_rank` at its machine, and loads the CUDA libraries where it
/// is a GPU: the `local_rank`th of `gpus`, or of all. Call it before libtorch is asked for any device.
///
/// # Errors
/// When the wish is [`Wish::Cuda`] and something is missing. When it is [`Wish::Auto`], only if there are fewer GPUs
/// than workers, or `gpus` names one that is not there: then half of the workers would wait for the others.
pub fn choose(
    wish: Wish,
    gpus: Option<&[u32]>,
    local_rank: u32,
    places: &Places,
) -> Result<Choice, DeviceError> {
    if wish == Wish::Cpu {
        return Ok(Choice::Cpu(None));
    }
    let usable = Driver::open().and_then(|driver| {
        let count = driver.count()?;
        Ok((count, places.find()?))
    });
    let (visible, folder) = match usable {
        Ok(usable) => usable,
        Err(DeviceError::NoDriver | DeviceError::NoDevice { .. }) if wish == Wish::Auto => {
            return Ok(Choice::Cpu(None));
        }
        Err(error) if wish == Wish::Auto => {
            return Ok(Choice::Cpu(Some(format!("computing on the CPU, not on a GPU: {error}"))));
        }
        Err(error) => return Err(error),
    };
    let index = pick(gpus, local_rank, visible)?;
    match load(&folder) {
        Ok(()) => Ok(Choice::Cuda { index, visible, folder }),
        Err(error) if wish == Wish::Auto => {
            Ok(Choice::Cpu(Some(format!("computing on the CPU, not on a GPU: {error}"))))
        }
        Err(error) => Err(error),
    }
}

/// The number of the GPU of worker `local_rank` where `visible` GPUs are there.
fn pick(gpus: Option<&[u32]>, local_rank: u32, visible: usize) -> Result<usize, DeviceError> {
    let Some(gpus) = gpus else {
        let index = local_rank as usize;
        let too_few = DeviceError::TooFew { local_rank, gpus: visible, listed: false };
        return if index < visible { Ok(index) } else { Err(too_few) };
    };
    if let Some(gpu) = gpus.iter().find(|gpu| **gpu as usize >= visible) {
        return Err(DeviceError::OutOfRange { gpu: *gpu, last: visible.saturating_sub(1) as u32 });
    }
    gpus.get(local_rank as usize).map(|gpu| *gpu as usize).ok_or(DeviceError::TooFew {
        local_rank,
        gpus: gpus.len(),
        listed: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own() {
        assert_eq!([0, 1, 2].map(|rank| pick(None, rank, 3)), [Ok(0), Ok(1), Ok(2)]);
        assert_eq!([0, 1].map(|rank| pick(Some(&[3, 1]), rank, 4)), [Ok(3), Ok(1)]);
    }

    #[test]
    fn more_workers_than_gpus_is_an_error() {
        assert_eq!(pick(None, 2, 2), Err(DeviceError::TooFew { local_rank: 2, gpus: 2, listed: false }));
        assert_eq!(pick(Some(&[0]), 1, 2), Err(DeviceError::TooFew { local_rank: 1, gpus: 1, listed: true }));
    }

    #[test]
    fn every_worker_hears_of_a_gpu_that_is_not_there() {
        for rank in [0, 1] {
            assert_eq!(pick(Some(&[0, 7]), rank, 2), Err(DeviceError::OutOfRange { gpu: 7, last: 1 }));
        }
    }

    #[test]
    fn the_cpu_needs_nothing() {
        assert_eq!(choose(Wish::Cpu, None, 5, &Places::default()), Ok(Choice::Cpu(None)));
    }

    #[test]
    fn without_a_driver_auto_takes_the_cpu_and_cuda_says_why() {
        if !matches!(Driver::open(), Err(DeviceError::NoDriver)) {
            eprintln!("skipped: this machine has an NVIDIA driver");
            return;
        }
        let places = Places::default();
        assert_eq!(choose(Wish::Auto, None, 0, &places), Ok(Choice::Cpu(None)));
        assert_eq!(choose(Wish::Cuda, None, 0, &places), Err(DeviceError::NoDriver));
    }
}
