//! Commands that ask a daemon.

use serde_json::json;
use squad_proto::pb;
use tokio_stream::StreamExt;

use crate::cli::{ExternalArgs, JobArgs, ServerArgs, SpecArgs};
use crate::client::Client;
use crate::fault::{BadUsage, Verdict};
use crate::follow::{Interrupts, OnInterrupt, follow};
use crate::job_file::JobFile;
use crate::output::Output;
use crate::{report, ticket_file};

/// Hands a job to a daemon.
pub(super) async fn submit(
    (mut arguments, external): (SpecArgs, ExternalArgs),
    (priority, wait): (Option<i32>, bool),
    server: ServerArgs,
    output: Output,
) -> anyhow::Result<Verdict> {
    arguments.source.overrides.extend(priority.map(|priority| format!("priority={priority}")));
    let file = JobFile::read(&arguments)?;
    let client = Client::connect(&server).await?;
    let processes = arguments.source.processes.unwrap_or(0);
    let submitted = client.submit(file.submission()?, file.task(), processes, external.external).await?;
    if let Some(path) = &external.ticket_file {
        let (patience_s, workers) = file.gang();
        let world = arguments.source.processes.unwrap_or(workers);
        let invitation = submitted.invitation(world, patience_s);
        if let Err(error) = ticket_file::write(path, &invitation) {
            // Nobody could ever join it.
            client.cancel(&submitted.job).await?;
            return Err(error);
        }
    }
    let job = submitted.job;
    if !wait {
        output.answer(&json!({"id": job}), || job.clone())?;
        return Ok(Verdict::Done);
    }
    if !output.is_json() {
        output.talk(&format!("submitted {job}"));
    }
    let mut interrupts = Interrupts::listen()?;
    follow(&client, &job, output, (&mut interrupts, OnInterrupt::Detach)).await
}

/// Lists a daemon's jobs. Specs are left out: `get` has them.
pub(super) async fn list(server: ServerArgs, output: Output) -> anyhow::Result<Verdict> {
    let jobs = Client::connect(&server).await?.list().await?;
    if jobs.is_empty() && !output.is_json() {
        output.talk("no jobs yet; squadctl submit SPEC adds one");
        return Ok(Verdict::Done);
    }
    output.answer(&jobs, || report::list(&jobs))?;
    Ok(Verdict::Done)
}

/// Shows a job.
pub(super) async fn get(which: JobArgs, output: Output) -> anyhow::Result<Verdict> {
    let (client, id) = find(&which).await?;
    let job = client.get(&id).await?;
    output.answer(&job, || report::details(&job))?;
    Ok(Verdict::Done)
}

/// Follows a job to its end.
pub(super) async fn watch(which: JobArgs, output: Output) -> anyhow::Result<Verdict> {
    let (client, id) = find(&which).await?;
    let mut interrupts = Interrupts::listen()?;
    follow(&client, &id, output, (&mut interrupts, OnInterrupt::Detach)).await
}

/// Prints what workers wrote: all ranks, or one; all lines, or the last; now, or as they come.
pub(super) async fn logs(
    which: JobArgs,
    (rank, follow, tail): (Option<u32>, bool, u32),
    output: Output,
) -> anyhow::Result<Verdict> {
    if follow && output.is_json() {
        let text =
            "--follow prints lines as they come, which is no single JSON document: leave out one of the two";
        return Err(BadUsage(text.into()).into());
    }
    let (client, job) = find(&which).await?;
    let mut lines = client.logs(pb::LogsRequest { job, rank, follow, tail }).await?;
    let mut all = Vec::new();
    while let Some(line) = lines.next().await {
        let line = line.map_err(|status| client.fault(&status))?;
        if output.is_json() {
            all.push(json!({"rank": line.rank, "text": line.text}));
        } else if rank.is_some() {
            output.data(&format!("{}\n", line.text))?;
        } else {
            output.data(&format!("[{}] {}\n", line.rank, line.text))?;
        }
    }
    if output.is_json() {
        output.document(&all)?;
    }
    Ok(Verdict::Done)
}

/// Asks a job to stop.
pub(super) async fn cancel(which: JobArgs, wait: bool, output: Output) -> anyhow::Result<Verdict> {
    let (client, id) = find(&which).await?;
    let mut job = client.cancel(&id).await?;
    if wait && !job.state.is_final() {
        // The stream ends when the job has; what it says is of no interest here.
        let mut events = client.watch(&id, 0).await.map_err(|status| client.fault(&status))?;
        let mut interrupts = Interrupts::listen()?;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => drop(event.map_err(|status| client.fault(&status))?),
                    None => break,
                },
                () = interrupts.next() => return Ok(Verdict::Interrupted),
            }
        }
        job = client.get(&id).await?;
    }
    output.answer(&job, || format!("{id} is {}", job.state))?;
    Ok(Verdict::Done)
}

/// Connects, and finds the job that the user means.
async fn find(which: &JobArgs) -> anyhow::Result<(Client, String)> {
    let client = Client::connect(&which.server).await?;
    let id = client.resolve(&which.job).await?;
    Ok((client, id))
}
