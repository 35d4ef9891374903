//! What a coordinator is told when it starts.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::limits::Limits;
use crate::placement::Offer;

/// What a coordinator is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base of relative paths in submitted specs.
    pub root: PathBuf,
    /// Where jobs are remembered.
    pub store: StoreLocation,
    /// The `squad-worker` program; without one only jobs are taken whose workers something else places.
    pub worker_program: Option<PathBuf>,
    /// How many worker processes may run at once; where `gpus` are counted, those that compute on the CPU.
    pub slots: u32,
    /// GPUs that jobs may use, one for each worker, as `CUDA_VISIBLE_DEVICES` names them; `None` where they are not
    /// counted.
    pub gpus: Option<Vec<String>>,
    /// Threads of each worker; by default the cores are shared out.
    pub threads: Option<usize>,
    /// Folders that jobs may read and write in, `root` among them; `None` for a coordinator that serves only the user
    /// who started it.
    pub allowed: Option<Vec<PathBuf>>,
    /// How much it takes in.
    pub limits: Limits,
    /// How workers on other machines reach it; `None` when none can.
    pub reach: Option<Reach>,
}

/// How a coordinator is reached from other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Its address, such as `https://train.example:7311`.
    pub url: String,
    /// Certificates (PEM) that vouch for it; those of the system when `None`.
    pub certificates: Option<String>,
}

/// Where jobs are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// Nowhere beyond this process.
    Memory,
    /// In an SQLite file.
    File(PathBuf),
}

/// Why a coordinator cannot be configured.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is no worker program.
    #[error("cannot find squad-worker: looked at {}; build it (cargo build --release) or set SQUAD_WORKER to its path", .0.join(", "))]
    NoWorker(Vec<String>),
}

/// Finds `squad-worker`: the environment variable SQUAD_WORKER, else beside this program, else on the PATH.
///
/// # Errors
/// When it is nowhere; the error names every place.
pub fn find_worker_program() -> Result<PathBuf, ConfigError> {
    let mut places = Vec::new();
    if let Some(path) = std::env::var_os("SQUAD_WORKER") {
        places.push(PathBuf::from(path));
    } else {
        let own = std::env::current_exe().ok();
        places.extend(own.as_deref().and_then(Path::parent).map(|folder| folder.join("squad-worker")));
        let path = std::env::var_os("PATH").unwrap_or_default();
        places.extend(std::env::split_paths(&path).map(|folder| folder.join("squad-worker")));
    }
    match places.iter().find(|place| place.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(ConfigError::NoWorker(places.iter().map(|p| p.display().to_string()).collect())),
    }
}

impl Config {
    /// What it has for workers on its own machine.
    pub(crate) fn offer(&self) -> Offer {
        Offer { slots: self.slots, gpus: self.gpus.as_ref().map(|gpus| gpus.len() as u32) }
    }

    /// Threads of each of `processes` workers.
    pub fn threads_of(&self, processes: u32) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(|| squad_proto::threads_per_worker(cores, processes))
    }
}
