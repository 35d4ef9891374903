//! The gRPC service of a daemon, or of the coordinator inside `run`; its errors in a user's words.

use std::error::Error as _;
use std::time::Duration;

use anyhow::{Context, anyhow};
use squad_proto::connect::{Bearer, Trust, endpoint};
use squad_proto::pb;
use squad_proto::pb::jobs_client::JobsClient;
use squad_proto::{Invitation, JobId, Task};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::cli::ServerArgs;
use crate::fault::BadUsage;
use crate::job::Job;
use crate::keys;

/// A daemon on the same network answers within this, or not at all. Fixed: no job is known yet.
const CONNECT: Duration = Duration::from_secs(5);
/// Room for the list of a daemon with many jobs, whose results and specs come along.
const LARGEST_ANSWER: usize = 256 << 20;

/// Puts the user's token into every call.
#[derive(Clone, Debug)]
struct Shows(Option<Bearer>);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            bearer.put(&mut request);
        }
        Ok(request)
    }
}

/// A connection to a coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    jobs: JobsClient<InterceptedService<Channel, Shows>>,
    url: String,
    /// By which it is known, where it is reached over TLS.
    certificates: Option<String>,
}

/// A job that was taken.
pub(crate) struct Submitted {
    /// Its identifier.
    pub(crate) job: String,
    /// For an external job: what its workers prove themselves with.
    worker_token: String,
    /// Where they reach the coordinator, and by which certificates they know it.
    worker_server: String,
    worker_certificates: Option<String>,
}

impl Submitted {
    /// What lets workers join that something else places.
    pub(crate) fn invitation(&self, world: u32, patience_s: f64) -> Invitation {
        Invitation {
            server: self.worker_server.clone(),
            certificates: self.worker_certificates.clone(),
            job: JobId(self.job.clone()),
            token: self.worker_token.clone(),
            world,
            patience_s,
        }
    }
}

impl Client {
    /// Connects to the daemon that the user means, with what the user has to show.
    pub(crate) async fn connect(server: &ServerArgs) -> anyhow::Result<Self> {
        Self::open(&server.server, &keys::trust(server)?, keys::token(server)?.as_deref()).await
    }

    /// Connects to an address.
    pub(crate) async fn open(url: &str, trust: &Trust, token: Option<&str>) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let wrong = |error: squad_proto::connect::ConnectError| BadUsage(format!("--server {error}"));
        let endpoint = endpoint(&url, trust).map_err(wrong)?;
        let bearer = token.map(|token| Bearer::new(token, &endpoint)).transpose().map_err(wrong)?;
        let channel =
            endpoint.connect_timeout(CONNECT).connect().await.map_err(|error| unreached(&url, &error))?;
        let jobs = JobsClient::with_interceptor(channel, Shows(bearer));
        let jobs = jobs.max_decoding_message_size(LARGEST_ANSWER);
        Ok(Self { jobs, url, certificates: trust.certificates.clone() })
    }

    /// The daemon's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
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
        let reply = reply.into_inner();
        // Where the coordinator says nothing of its own, workers reach it as its users do.
        let (worker_server, worker_certificates) = match reply.worker_server {
            own if own.is_empty() => (self.url.clone(), self.certificates.clone()),
            own => (own, Some(reply.worker_certificates).filter(|pem| !pem.is_empty())),
        };
        Ok(Submitted { job: reply.job, worker_token: reply.worker_token, worker_server, worker_certificates })
    }

    /// One job.
    pub(crate) async fn get(&self, job: &str) -> anyhow::Result<Job> {
        let reply = self.jobs.clone().get(pb::GetRequest { job: job.into() }).await;
        reply.map_err(|status| self.fault(&status))?.into_inner().try_into()
    }

    /// All jobs, without what is long: specs, and the points of curves.
    pub(crate) async fn list(&self) -> anyhow::Result<Vec<Job>> {
        Ok(self.overview().await?.0)
    }

    /// The same, and what the daemon has for workers; nothing of that from an older daemon.
    pub(crate) async fn overview(&self) -> anyhow::Result<(Vec<Job>, Option<pb::Room>)> {
        let reply = self.jobs.clone().list(pb::ListRequest { brief: true }).await;
        let reply = reply.map_err(|status| self.fault(&status))?.into_inner();
        // An older daemon sends specs all the same.
        let without_spec = |job| Ok(Job { spec: None, ..Job::try_from(job)? });
        let jobs: anyhow::Result<Vec<Job>> = reply.jobs.into_iter().map(without_spec).collect();
        Ok((jobs?, reply.room))
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
            Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::PermissionDenied => BadUsage(message.to_owned()).into(),
            // The daemon said so itself: a connection that broke has a source.
            Code::Unavailable if status.source().is_none() => {
                anyhow!("the daemon at {} refused: {message}", self.url)
            }
            Code::ResourceExhausted | Code::OutOfRange => {
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

/// Why there is no connection. What went wrong with TLS is told: its cure is another than a daemon's start.
fn unreached(url: &str, error: &tonic::transport::Error) -> anyhow::Error {
    let text = anyhow::Chain::new(error).last().map(ToString::to_string).unwrap_or_default();
    if ["certificate", "Certificate", "HandshakeFailure", "corrupt message"]
        .iter()
        .any(|word| text.contains(word))
    {
        return anyhow!(
            "the daemon at {url} and this program do not trust each other: {text}; give the daemon's authority with \
             --ca FILE, and ask for it under a name of its certificate"
        );
    }
    anyhow!(
        "no daemon answers at {url}; start one with `squad-coordinator serve`, or name another with \
         --server URL or SQUADCTL_SERVER"
    )
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
