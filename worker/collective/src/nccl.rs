//! All-reduce of buffers on GPUs, by NVIDIA's NCCL.
//!
//! NCCL is loaded at run time, so a machine without it runs the same binary; it then answers with
//! [`CollectiveError::NcclMissing`]. The ring of the CPU stays beside it: it carries NCCL's unique id to all ranks, tells
//! every rank of what went wrong at another before NCCL starts, and notices a peer's death at once, where NCCL's kernels
//! would spin.
//!
//! One thread issues all operations, on a stream of its own. It waits on the GPU for the caller's stream (libtorch's: the
//! default one), and the caller's stream waits for it, by events; the host waits for neither. The thread polls NCCL's
//! asynchronous errors, the caller's [`AbortHandle`], the watched operations of the ring, and a deadline that begins when
//! this rank's own part is done. Whichever comes first aborts the communicator, which ends its kernels and so whoever
//! waits for them.
//!
//! Sums have the same bits on all ranks, but in an order that NCCL chooses: they agree with the ring's within rounding.

mod api;
mod bench;
mod communicator;
mod device;
mod issue;

use std::fmt;
use std::path::{Path, PathBuf};

pub use bench::bench;
pub use communicator::{Communicator, Options, Reducing};
pub use device::{DeviceBuffer, Mark};

#[cfg(doc)]
use crate::AbortHandle;
use crate::CollectiveError;

/// Which NCCL was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// As NCCL counts: 22809 is 2.28.9.
    pub code: u32,
    /// The file, where the system tells.
    pub file: Option<PathBuf>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.code / 10_000, self.code % 10_000 / 100, self.code % 100)
    }
}

/// Opens NCCL: the one that is in this process already (libtorch brings its own), else what the dynamic loader knows, else
/// the first of `files`.
///
/// # Errors
/// [`CollectiveError::NcclMissing`] where there is none, [`CollectiveError::Nccl`] where it is too old.
pub fn version(files: &[PathBuf]) -> Result<Version, CollectiveError> {
    Ok(api::Api::load(files)?.version())
}

/// Where `name` was loaded from, by the kernel's list of mappings.
fn loaded_file(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut named =
        files.filter(|file| file.file_name().is_some_and(|f| f.to_string_lossy().starts_with(name)));
    named.next().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(Version { code: 22_809, file: None }.to_string(), "2.28.9");
    }
}
