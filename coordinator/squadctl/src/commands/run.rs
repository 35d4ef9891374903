//! A job here and now: a coordinator on loopback inside this process, and a client of it like any other.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use squad_coordinator::{Config, Server, StoreLocation, find_worker_program};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cli::SpecArgs;
use crate::client::Client;
use crate::fault::Verdict;
use crate::follow::{Interrupts, OnInterrupt, follow};
use crate::job_file::{JobFile, LocalJob};
use crate::output::Output;

/// How long the coordinator may take to end after its only job has: it has nothing left to do.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// The same for a user who does not want to wait: workers end on their own when their coordinator is gone.
const ABANDONED: Duration = Duration::from_secs(1);

/// Runs a job to its end.
pub(super) async fn run(arguments: SpecArgs, output: Output) -> anyhow::Result<Verdict> {
    let job = JobFile::read(&arguments)?.resolve()?;
    let processes = arguments.processes.unwrap_or(job.spec.resources.workers);
    // From here on Ctrl-C is kept until the job can be cancelled: no worker is left without being asked to stop.
    let mut interrupts = Interrupts::listen()?;
    let config = Config {
        root: job.folder.clone(),
        store: StoreLocation::Memory,
        worker_program: find_worker_program()?,
        slots: processes,
        threads: None,
    };
    let server = Server::bind(config, (Ipv4Addr::LOCALHOST, 0).into())
        .await
        .context("cannot start the coordinator")?;
    let url = format!("http://{}", server.local_addr());
    let (shut_down, told) = oneshot::channel::<()>();
    // An error here means that `shut_down` was dropped, which is the sign as well.
    let serving = tokio::spawn(server.run(async { drop(told.await) }));

    let verdict = submit_and_follow(&url, &job, processes, (&mut interrupts, output)).await;
    drop(shut_down);
    let patience = if matches!(verdict, Ok(Verdict::Interrupted)) { ABANDONED } else { SHUTDOWN };
    match (verdict, end(serving, patience, &mut interrupts).await) {
        // A coordinator that broke is why its client failed.
        (Err(_), Err(cause)) => Err(cause),
        (verdict, _) => verdict,
    }
}

async fn submit_and_follow(
    url: &str,
    job: &LocalJob,
    processes: u32,
    (interrupts, output): (&mut Interrupts, Output),
) -> anyhow::Result<Verdict> {
    let client = Client::connect(url).await?;
    let spec = serde_json::to_string(&job.spec).context("cannot write the spec as JSON")?;
    let id = client.submit(spec, &job.task, processes).await?;
    follow(&client, &id, output, (interrupts, OnInterrupt::Cancel)).await
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
