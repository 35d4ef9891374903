//! Each way in which a GPU can be missing.

use std::path::PathBuf;

use thiserror::Error;

/// Why a worker cannot have a GPU. Each sentence ends with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// `libcuda.so.1` cannot be loaded.
    #[error(
        "this machine has no NVIDIA driver (libcuda.so.1 cannot be loaded); install the driver, or set \
         resources.device: cpu"
    )]
    NoDriver,
    /// The driver is there and does not work.
    #[error(
        "NVIDIA's driver does not start ({code}); if nvidia-smi fails too, load the kernel module, or restart the \
         machine after an update of the driver"
    )]
    DriverFailed {
        /// The driver's own word, such as `CUDA_ERROR_SYSTEM_DRIVER_MISMATCH`.
        code: String,
    },
    /// The driver knows an older CUDA only.
    #[error(
        "NVIDIA's driver knows CUDA {}.{} at most, libtorch's CUDA libraries need {}.{}; install driver 580 or later, \
         or set resources.device: cpu",
        found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10
    )]
    DriverTooOld {
        /// As the driver counts: 13000 is 13.0.
        found: u32,
        /// As the driver counts.
        needed: u32,
    },
    /// The driver shows no device.
    #[error(
        "NVIDIA's driver is there but shows no GPU{}; see what nvidia-smi lists, or set resources.device: cpu",
        .visible.as_ref().map(|list| format!(" (CUDA_VISIBLE_DEVICES is {list:?})")).unwrap_or_default()
    )]
    NoDevice {
        /// `CUDA_VISIBLE_DEVICES`, where it is set.
        visible: Option<String>,
    },
    /// More workers on a machine than GPUs.
    #[error(
        "worker {} of this machine has no GPU: {}; start at most {gpus} {} on it (resources.workers, -np), or set \
         resources.device: cpu",
        local_rank + 1,
        if *.listed { format!("resources.gpus lists {gpus}") } else { format!("it has {gpus}") },
        if *.gpus == 1 { "worker" } else { "workers" }
    )]
    TooFew {
        /// Number of the worker at its machine, from 0.
        local_rank: u32,
        /// How many GPUs may be used.
        gpus: usize,
        /// Whether the spec lists them.
        listed: bool,
    },
    /// The spec names a GPU that is not there.
    #[error("resources.gpus names GPU {gpu}, but this machine has GPUs 0 to {last}")]
    OutOfRange {
        /// The number in the spec.
        gpu: u32,
        /// The highest number there is.
        last: u32,
    },
    /// The CUDA libraries are nowhere.
    #[error(
        "libtorch's CUDA libraries (libtorch_cuda.so) are in none of {}; run scripts/setup.sh --cuda, or name their \
         folder in SQUAD_LIBTORCH_CUDA, or set resources.device: cpu",
        list(.searched)
    )]
    NoLibraries {
        /// The folders that were looked into.
        searched: Vec<PathBuf>,
    },
    /// The folder that the user named does not hold them.
    #[error("SQUAD_LIBTORCH_CUDA is {}, which has no libtorch_cuda.so", .0.display())]
    NotThere(PathBuf),
    /// The CUDA libraries are there and cannot be loaded.
    #[error(
        "{} cannot be loaded: {message}; they must be those of the same libtorch as the CPU's (scripts/setup.sh --cuda \
         brings them)",
        path.display()
    )]
    Load {
        /// `libtorch_cuda.so`.
        path: PathBuf,
        /// The dynamic loader's words.
        message: String,
    },
    /// Driver and libraries are there, libtorch still finds no GPU.
    #[error(
        "libtorch finds {found} GPUs with the libraries of {}, the driver {expected}; the libraries and the driver do \
         not belong together",
        folder.display()
    )]
    Refused {
        /// Where the libraries are.
        folder: PathBuf,
        /// What libtorch counts.
        found: usize,
        /// What the driver counts.
        expected: usize,
    },
}

fn list(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if names.is_empty() { "the known folders".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_to_do() {
        let all = [
            DeviceError::NoDriver,
            DeviceError::DriverFailed { code: "CUDA_ERROR_UNKNOWN".into() },
            DeviceError::DriverTooOld { found: 12040, needed: 13000 },
            DeviceError::NoDevice { visible: Some(String::new()) },
            DeviceError::TooFew { local_rank: 2, gpus: 2, listed: true },
            DeviceError::OutOfRange { gpu: 9, last: 1 },
            DeviceError::NoLibraries { searched: vec!["/a".into(), "/b".into()] },
            DeviceError::NotThere("/x".into()),
            DeviceError::Load { path: "/a/libtorch_cuda.so".into(), message: "undefined symbol".into() },
            DeviceError::Refused { folder: "/a".into(), found: 0, expected: 2 },
        ]
        .map(|error| error.to_string());
        for (text, part) in all.iter().zip([
            "libcuda.so.1",
            "nvidia-smi",
            "CUDA 12.4 at most, libtorch's CUDA libraries need 13.0",
            "(CUDA_VISIBLE_DEVICES is \"\")",
            "worker 3 of this machine has no GPU: resources.gpus lists 2; start at most 2 workers",
            "names GPU 9, but this machine has GPUs 0 to 1",
            "in none of /a, /b; run scripts/setup.sh --cuda",
            "which has no libtorch_cuda.so",
            "undefined symbol",
            "finds 0 GPUs",
        ]) {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}
