//! What a worker is told at birth.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Fence, Generation, JobId};
use crate::spec::JobSpec;
use crate::task::Task;

/// One JSON line that a worker reads from its standard input (or from a file of mode 0600).
///
/// It carries a secret, so it is never put into arguments or the environment, which other users of a
/// machine can read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// Where the coordinator listens, such as `http://127.0.0.1:41234`.
    pub server: String,
    /// Certificates (PEM) that vouch for the coordinator of an `https` address; those of the system when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// The job.
    pub job: JobId,
    /// Its life.
    pub generation: Generation,
    /// The worker's place at its host, `0..world`; the coordinator assigns the rank.
    pub slot: u32,
    /// How many workers the gang has.
    pub world: u32,
    /// Proof towards the coordinator and, in the ring, towards the other workers.
    pub token: String,
    /// The resolved spec: paths are absolute.
    pub spec: JobSpec,
    /// What to do with it.
    pub task: Task,
    /// How many threads the worker computes with.
    pub threads: usize,
    /// The worker has an attendant: it outlives its connection to the coordinator, and comes back to it.
    #[serde(default)]
    pub attended: bool,
}

/// What lets attendants join a job whose workers are placed by something else: the content of a ticket file.
///
/// It carries a secret: the file has mode 0600, or is a mounted Secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// Where the coordinator can be reached.
    pub server: String,
    /// Certificates (PEM) that vouch for the coordinator of an `https` address; those of the system when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// The job.
    pub job: JobId,
    /// Proof towards the coordinator and, in the ring, towards the other workers.
    pub token: String,
    /// How many workers the job waits for.
    pub world: u32,
    /// The job's patience in seconds.
    pub patience_s: f64,
}

impl std::fmt::Debug for Invitation {
    /// Leaves the token out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("server", &self.server)
            .field("job", &self.job)
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// The fence that this worker's messages carry.
    pub fn fence(&self) -> Fence {
        Fence { job: self.job.clone(), generation: self.generation }
    }

    /// The job's patience, from its spec.
    pub fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.spec.fault.patience_s)
    }

    /// Where the job writes.
    pub fn output_dir(&self) -> PathBuf {
        PathBuf::from(&self.spec.output_dir)
    }
}

impl std::fmt::Debug for Ticket {
    /// Leaves the token out: tickets are logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket")
            .field("server", &self.server)
            .field("job", &self.job)
            .field("generation", &self.generation)
            .field("slot", &self.slot)
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn debug_text_has_no_secret() {
        let spec = serde_json::json!({"name": "a", "model": "m", "output_dir": "o", "data": {}});
        let ticket = super::Ticket {
            server: "http://127.0.0.1:1".into(),
            certificates: None,
            job: super::JobId("a-1".into()),
            generation: super::Generation::FIRST,
            slot: 0,
            world: 1,
            token: "very-secret".into(),
            spec: serde_json::from_value(spec).unwrap(),
            task: super::Task::default(),
            threads: 1,
            attended: false,
        };
        assert!(!format!("{ticket:?}").contains("very-secret"));
        let invitation = super::Invitation {
            server: "http://127.0.0.1:1".into(),
            certificates: None,
            job: super::JobId("a-1".into()),
            token: "very-secret".into(),
            world: 2,
            patience_s: 60.0,
        };
        assert!(!format!("{invitation:?}").contains("very-secret"));
    }
}
