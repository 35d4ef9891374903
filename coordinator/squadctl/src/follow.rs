//! Watching a job to its end, and what Ctrl-C means there.

use anyhow::{Context, bail};
use serde_json::json;
use squad_proto::{Event, JobState};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_stream::StreamExt;

use crate::client::Client;
use crate::fault::Verdict;
use crate::job::Job;
use crate::output::Output;
use crate::report;
use crate::view::{self, View};

/// Ctrl-C, and the polite kill.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on these signals are ours; one that comes before anybody waits for it is kept.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for Ctrl-C");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What an interrupt does to the job that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// The job is ours: the first asks it to stop, the second gives up waiting.
    Cancel,
    /// The job is a daemon's: watching ends, the job goes on.
    Detach,
}

/// How the watching ended.
struct Followed {
    /// The job, if it has ended.
    job: Option<Job>,
    interrupted: bool,
}

/// Shows a job's events until it has ended, then what came of it.
pub(crate) async fn follow(
    client: &Client,
    job: &str,
    output: Output,
    (interrupts, on_interrupt): (&mut Interrupts, OnInterrupt),
) -> anyhow::Result<Verdict> {
    let mut view = view::new(output);
    let followed = watch(client, job, view.as_mut(), (interrupts, on_interrupt)).await;
    view.close();
    let Followed { job: ended, interrupted } = followed?;
    let Some(ended) = ended else {
        if output.is_json() {
            output.document(&json!({"id": job, "error": "interrupted", "exit_code": 130}))?;
        }
        return Ok(Verdict::Interrupted);
    };
    report::ended(&ended, output)?;
    Ok(match ended.state {
        JobState::Succeeded => Verdict::Done,
        JobState::Cancelled if interrupted => Verdict::Interrupted,
        _ => Verdict::Failed,
    })
}

async fn watch(
    client: &Client,
    job: &str,
    view: &mut dyn View,
    (interrupts, on_interrupt): (&mut Interrupts, OnInterrupt),
) -> anyhow::Result<Followed> {
    let mut events = client.watch(job).await?;
    let mut interrupted = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = interrupts.next() => {
                if on_interrupt == OnInterrupt::Detach {
                    view.say(&format!("{job} goes on; squadctl watch {job} follows it, squadctl cancel {job} ends it"));
                    return Ok(Followed { job: None, interrupted: true });
                }
                if interrupted {
                    view.say("killing the workers");
                    return Ok(Followed { job: None, interrupted: true });
                }
                interrupted = true;
                view.say("asking the workers to stop; press Ctrl-C again to leave without waiting for them");
                client.cancel(job).await?;
                continue;
            }
        };
        let Some(event) = event else { break };
        let event = event.map_err(|status| client.fault(&status))?;
        match Event::try_from(event) {
            Ok(event) => view.show(&event),
            Err(error) => view.say(&format!("an event of a newer daemon was left out: {error}")),
        }
    }
    let ended = client.get(job).await?;
    if !ended.state.is_final() {
        bail!(
            "the daemon stopped telling about {job}, which is {}; go on with squadctl watch {job}",
            ended.state
        );
    }
    Ok(Followed { job: Some(ended), interrupted })
}
