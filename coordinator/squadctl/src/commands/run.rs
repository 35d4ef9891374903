//! A job here and now: a coordinator on loopback inside this process, and a client of it like any other.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use squad_coordinator::{
    Config, Limits, Server, StoreLocation, TraceError, TraceTarget, find_worker_program,
};
use squad_proto::connect::Trust;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::mpirun;
use crate::cli::{Hosts, RunArgs};
use crate::client::Client;
use crate::fault::{BadUsage, Verdict};
use crate::follow::{Interrupts, OnInterrupt, follow};
use crate::job_file::{JobFile, LocalJob};
use crate::output::Output;
use crate::ticket_file::TicketFile;

/// How long the coordinator may take to end after its only job has: it has nothing left to do. Fixed: the job is over.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// The same for a user who does not want to wait: workers end on their own when their coordinator is gone. Fixed: it is
/// the user's patience.
const ABANDONED: Duration = Duration::from_secs(1);

/// Who starts the workers.
enum Workers {
    /// The coordinator, here.
    Here,
    /// Somebody who has the ticket.
    External(PathBuf),
    /// mpirun, on these machines.
    Hosts { mpirun: PathBuf, hosts: Hosts, ticket: PathBuf },
}

/// Runs a job to its end.
pub(super) async fn run(arguments: RunArgs, output: Output) -> anyhow::Result<Verdict> {
    let job = JobFile::read(&arguments.spec)?.resolve()?;
    let hosts = arguments.hosts.as_ref().map(Hosts::slots);
    let processes = arguments.spec.source.processes.or(hosts).unwrap_or(job.spec.resources.workers);
    let workers = workers(&arguments, &job)?;
    // From here on Ctrl-C is kept until the job can be cancelled: no worker is left without being asked to stop.
    let mut interrupts = Interrupts::listen()?;
    if arguments.ends_with_parent {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
            .context("cannot watch the parent")?;
    }
    let config = Config {
        root: job.folder.clone(),
        store: StoreLocation::Memory,
        worker_program: if matches!(workers, Workers::Here) { Some(find_worker_program()?) } else { None },
        slots: processes,
        // There is one job, which has whatever there is.
        gpus: None,
        threads: None,
        // Whoever runs a job here may name what they may read and write themselves.
        allowed: None,
        limits: Limits::default(),
        reach: None,
    };
    let mut server = Server::bind(config, (Ipv4Addr::LOCALHOST, 0).into(), None)
        .await
        .context("cannot start the coordinator")?;
    if let Some(target) = traces(&arguments, output)? {
        server = server.with_traces(target).context("cannot start the coordinator")?;
    }
    let url = format!("http://{}", server.local_addr());
    // Others on this machine reach the port too.
    let secret = server.secret().map(str::to_owned);
    let (shut_down, told) = oneshot::channel::<()>();
    // An error here means that `shut_down` was dropped, which is the sign as well.
    let serving = tokio::spawn(server.run(async { drop(told.await) }));

    let verdict =
        submit_and_follow((&url, secret.as_deref()), (&job, &workers), processes, (&mut interrupts, output))
            .await;
    drop(shut_down);
    let patience = if matches!(verdict, Ok(Verdict::Interrupted)) { ABANDONED } else { SHUTDOWN };
    match (verdict, end(serving, patience, &mut interrupts).await) {
        // A coordinator that broke is why its client failed.
        (Err(_), Err(cause)) => Err(cause),
        (verdict, _) => verdict,
    }
}

/// Where the job's trace goes, if anywhere. The variable may be there for other programs, which speak another form of the
/// protocol.
fn traces(arguments: &RunArgs, output: Output) -> anyhow::Result<Option<TraceTarget>> {
    let Some(url) = &arguments.otlp_endpoint else { return Ok(None) };
    match TraceTarget::new(url, |name| std::env::var(name).ok()) {
        Ok(target) => Ok(target),
        Err(error @ TraceError::Protocol(_)) => {
            // In JSON, stderr has nothing but events.
            if !output.is_json() {
                output.talk(&format!("no trace is sent: {error}"));
            }
            Ok(None)
        }
        Err(error) => Err(BadUsage(error.to_string()).into()),
    }
}

fn workers(arguments: &RunArgs, job: &LocalJob) -> anyhow::Result<Workers> {
    if let Some(path) = &arguments.external.ticket_file {
        return Ok(Workers::External(path.clone()));
    }
    let Some(hosts) = arguments.hosts.clone() else { return Ok(Workers::Here) };
    if !hosts.are_local() {
        return Err(BadUsage(format!(
            "-H {hosts}: the coordinator of `run` can be reached from this machine only; use a daemon that listens \
             for other machines, and squadctl submit --external"
        ))
        .into());
    }
    // Beside the spec, where other machines see it as well as the spec's files.
    let ticket = job.folder.join(format!(".squad-ticket-{}", std::process::id()));
    Ok(Workers::Hosts { mpirun: mpirun::find()?, hosts, ticket })
}

async fn submit_and_follow(
    (url, secret): (&str, Option<&str>),
    (job, workers): (&LocalJob, &Workers),
    processes: u32,
    (interrupts, output): (&mut Interrupts, Output),
) -> anyhow::Result<Verdict> {
    let client = Client::open(url, &Trust::default(), secret).await?;
    let spec = serde_json::to_string(&job.spec).context("cannot write the spec as JSON")?;
    let external = !matches!(workers, Workers::Here);
    let submitted = client.submit(spec, &job.task, processes, external).await?;
    let ticket = match workers {
        Workers::Here => None,
        Workers::External(path) | Workers::Hosts { ticket: path, .. } => {
            let invitation = submitted.invitation(processes, job.spec.fault.patience_s);
            Some(TicketFile::write(path, &invitation)?)
        }
    };
    let id = &submitted.job;
    let following = follow(&client, id, output, (interrupts, OnInterrupt::Cancel));
    let verdict = match workers {
        Workers::Hosts { mpirun, hosts, ticket } => {
            let launched = mpirun::start(mpirun, hosts, processes, ticket)?;
            beside(launched, following, &client, id).await
        }
        _ => following.await,
    };
    drop(ticket);
    verdict
}

/// Follows the job while mpirun runs its workers; without those the job cannot go on.
async fn beside(
    mut launched: Child,
    following: impl Future<Output = anyhow::Result<Verdict>>,
    client: &Client,
    id: &str,
) -> anyhow::Result<Verdict> {
    let mut following = std::pin::pin!(following);
    tokio::select! {
        verdict = &mut following => {
            // Its processes end with the job; what mpirun thinks of their exit codes is of no interest.
            tokio::time::timeout(SHUTDOWN, launched.wait()).await.ok();
            verdict
        }
        status = launched.wait() => {
            let status = status.context("cannot wait for mpirun")?;
            // The workers may have ended because the job has.
            if let Ok(verdict) = tokio::time::timeout(ABANDONED, &mut following).await {
                return verdict;
            }
            client.cancel(id).await?;
            following.await?;
            Err(anyhow!(
                "mpirun ended before the job had ({status}); what it said stands above, and squadctl run --resume goes \
                 on from the newest checkpoint"
            ))
        }
    }
}

/// Waits for the coordinator to end, but not for ever, and not against the user's wish.
async fn end(
    serving: JoinHandle<Result<(), squad_coordinator::ServeError>>,
    patience: Duration,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    tokio::select! {
        ended = serving => match ended {
            Ok(served) => served.context("the coordinator failed"),
            Err(panicked) => Err(anyhow!("the coordinator failed: {panicked}")),
        },
        () = tokio::time::sleep(patience) => Ok(()),
        () = interrupts.next() => Ok(()),
    }
}
