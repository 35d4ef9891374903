//! Watching a job to its end, and what Ctrl-C means there.

mod watch;

use anyhow::Context;
use serde_json::json;
use squad_proto::JobState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::watch::{Followed, Watch};
use crate::client::Client;
use crate::fault::Verdict;
use crate::output::Output;
use crate::report;
use crate::view;

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

/// Shows a job's events until it has ended, then what came of it.
pub(crate) async fn follow(
    client: &Client,
    job: &str,
    output: Output,
    (interrupts, on_interrupt): (&mut Interrupts, OnInterrupt),
) -> anyhow::Result<Verdict> {
    let mut view = view::new(output);
    let followed = Watch::of((client, job), view.as_mut(), (interrupts, on_interrupt)).run().await;
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
