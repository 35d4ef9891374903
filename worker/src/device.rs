//! Which device this worker computes on.

use squad_cuda::{Choice, DeviceError, Places, Wish};
use squad_proto::spec::{DeviceKind, Resources};
use tch::{Cuda, Device};

/// The device of the worker that is number `local_rank` at its machine, with what should be said about it. Loads
/// libtorch's CUDA half where it is a GPU; so it comes before everything else that libtorch is asked for.
///
/// # Errors
/// What is missing, where a GPU is asked for; see [`squad_cuda::choose`].
pub(crate) fn choose(
    resources: &Resources,
    local_rank: u32,
) -> Result<(Device, Option<String>), DeviceError> {
    let wish = match resources.device {
        DeviceKind::Auto => Wish::Auto,
        DeviceKind::Cpu => Wish::Cpu,
        DeviceKind::Cuda => Wish::Cuda,
    };
    let places = Places::of_process();
    match squad_cuda::choose(wish, resources.gpus.as_deref(), local_rank, &places)? {
        Choice::Cpu(note) => Ok((Device::Cpu, note)),
        Choice::Cuda { index, visible, folder } => {
            let found = if Cuda::is_available() { Cuda::device_count().max(0) as usize } else { 0 };
            if found != visible {
                return Err(DeviceError::Refused { folder, found, expected: visible });
            }
            let note = format!("computing on GPU {index} with the libraries of {}", folder.display());
            Ok((Device::Cuda(index), Some(note)))
        }
    }
}
