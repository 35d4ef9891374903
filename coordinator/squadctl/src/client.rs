//! The gRPC service of a daemon, or of the coordinator inside `run`; its errors in a user's words.

use std::error::Error as _;
use std::time::Duration;

use anyhow::{Context, anyhow};
use squad_proto::pb;
use squad_proto::pb::jobs_client::JobsClient;
use squad_proto::{Invitation, JobId, Task};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::fault::BadUsage;
use crate::job::Job;

/// A daemon on the same network answers within this, or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// Room for the list of a daemon with many jobs, whose results and specs come along.
const LARGEST_ANSWER: usize = 256 << 20;

/// A connection to a coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    jobs: JobsClient<Channel>,
    url: String,
}

/// A job that was taken.
pub(crate) struct Submitted {
    /// Its identifier.
    pub(crate) job: String,
    /// For an external job: what its workers prove themselves with.
    worker_token: String,
}

impl Submitted {
    /// What lets workers join that something else places.
    pub(crate) fn invitation(&self, server: &str, world: u32, patience_s: f64) -> Invitation {
        Invitation {
            server: server.to_owned(),
            job: JobId(self.job.clone()),
            token: self.worker_token.clone(),
            world,
            patience_s,
        }
    }
}

impl Client {
    /// Where the daemon is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Connects to a daemon.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let endpoint = Endpoint::from_shared(url.clone())
            .ok()
            .filter(|endpoint| endpoint.uri().scheme_str() == Some("http"))
            .ok_or_else(|| BadUsage(format!("--server {url}: write it as http://HOST:PORT")))?;
        let channel = endpoint.connect_timeout(CONNECT).connect().await.map_err(|_| {
            anyhow!(
                "no daemon answers at {url}; start one with `squad-coordinator serve`, or name another with \
                 --server URL or SQUADCTL_SERVER"
            )
        })?;
        Ok(Self { jobs: JobsClient::new(channel).max_decoding_message_size(LARGEST_ANSWER), url })
    }

    /// Submits a spec (JSON). 0 processes means the spec's workers.
    pub(crate) async fn submit(
        &self,
        spec_json: String,
        task: &Task,
        processes: u32,
        external: bool,
    ) -> anyhow::Result<Submitted> {
        let task_json = serde_json::to_string(task).context("cannot write the task as JSON")?;
        let request = pb::SubmitRequest { spec_json, task_json, processes, external };
        let reply = self.jobs.clone().submit(request).await.map_err(|status| self.fault(&status))?;
        let pb::SubmitReply { job, worker_token } = reply.into_inner();
        Ok(Submitted { job, worker_token })
    }

    /// One job.
    pub(crate) async fn get(&self, job: &str) -> anyhow::Result<Job> {
        let reply = self.jobs.clone().get(pb::GetRequest { job: job.into() }).await;
        reply.map_err(|status| self.fault(&status))?.into_inner().try_into()
    }

    /// All jobs.
    pub(crate) async fn list(&self) -> anyhow::Result<Vec<Job>> {
        let reply = self.jobs.clone().list(pb::ListRequest {}).await.map_err(|status| self.fault(&status))?;
        reply.into_inner().jobs.into_iter().map(Job::try_from).collect()
    }

    /// Asks a job to stop; answers before it has.
    pub(crate) async fn cancel(&self, job: &str) -> anyhow::Result<Job> {
        let reply = self.jobs.clone().cancel(pb::CancelRequest { job: job.into() }).await;
        reply.map_err(|status| self.fault(&status))?.into_inner().try_into()
    }

    /// The events of a job after `sequence`: those that were, then those that come, until it has ended.
    ///
    /// # Errors
    /// As the daemon or the connection says it: [`is_broken`] tells which, [`Self::fault`] puts it in a user's words.
    pub(crate) async fn watch(&self, job: &str, sequence: u64) -> Result<Streaming<pb::Event>, Status> {
        let request = pb::WatchRequest { job: job.into(), after_sequence: sequence };
        Ok(self.jobs.clone().watch(request).await?.into_inner())
    }

    /// What a job's workers wrote.
    pub(crate) async fn logs(&self, request: pb::LogsRequest) -> anyhow::Result<Streaming<pb::LogLine>> {
        Ok(self.jobs.clone().logs(request).await.map_err(|status| self.fault(&status))?.into_inner())
    }

    /// The identifier that `given` means: itself, or the only one that begins so.
    pub(crate) async fn resolve(&self, given: &str) -> anyhow::Result<String> {
        let jobs = self.list().await?;
        Ok(pick(given, jobs.iter().map(|job| job.id.as_str()))?.to_owned())
    }

    /// What a refused or broken call means to a user.
    pub(crate) fn fault(&self, status: &Status) -> anyhow::Error {
        let message = status.message();
        match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => {
                BadUsage(message.to_owned()).into()
            }
            // The daemon said so itself: a connection that broke has a source.
            Code::Unavailable if status.source().is_none() => {
                anyhow!("the daemon at {} refused: {message}", self.url)
            }
            Code::Unavailable | Code::Unknown | Code::Cancelled => anyhow!(
                "the connection to the daemon at {} broke ({message}); when it is back, go on with squadctl watch",
                self.url
            ),
            Code::Unimplemented => {
                anyhow!("the daemon at {} is of another version: it does not know this request", self.url)
            }
            _ => anyhow!("the daemon at {} failed: {message}", self.url),
        }
    }
}

/// Whether the connection broke, and the daemon may come back.
pub(crate) fn is_broken(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => status.source().is_some(),
        code => matches!(code, Code::Unknown | Code::Cancelled),
    }
}

/// The identifier that equals `given`, or the only one that begins with it.
fn pick<'a>(given: &str, ids: impl Iterator<Item = &'a str>) -> Result<&'a str, BadUsage> {
    let mut matching: Vec<&str> = ids.filter(|id| id.starts_with(given)).collect();
    if let Some(exact) = matching.iter().find(|id| **id == given) {
        return Ok(exact);
    }
    matching.sort_unstable();
    match matching[..] {
        [] => Err(BadUsage(format!("there is no job {given}; squadctl list shows all"))),
        [only] => Ok(only),
        _ => Err(BadUsage(format!("{given} may be any of {}; write more of it", matching.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_any_unique_beginning() {
        let ids = ["quick-1a", "quick-1b", "quick", "slow-2c"];
        let picked = |given| pick(given, ids.into_iter()).map_err(|e| e.to_string());
        assert_eq!(picked("slow"), Ok("slow-2c"));
        assert_eq!(picked("quick"), Ok("quick"), "an exact name wins");
        assert_eq!(
            picked("quick-1"),
            Err("quick-1 may be any of quick-1a, quick-1b; write more of it".into())
        );
        assert_eq!(picked("fast"), Err("there is no job fast; squadctl list shows all".into()));
    }
}
