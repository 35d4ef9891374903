//! The events of a job, across restarts of its daemon.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use squad_proto::{Deadlines, Event, pb};
use tokio_stream::StreamExt;

use super::{Interrupts, OnInterrupt};
use crate::client::{Client, is_broken};
use crate::job::Job;
use crate::view::View;

/// How the watching ended.
pub(super) struct Followed {
    /// The job, if it has ended.
    pub(super) job: Option<Job>,
    pub(super) interrupted: bool,
}

/// A job that is watched.
pub(super) struct Watch<'a> {
    client: &'a Client,
    job: &'a str,
    view: &'a mut dyn View,
    interrupts: &'a mut Interrupts,
    on_interrupt: OnInterrupt,
    interrupted: bool,
    /// Number of the last event that was shown.
    seen: u64,
}

/// How one stream of events ended.
enum Told {
    /// With the job.
    All(Box<Job>),
    /// By the user's wish.
    Left,
    /// Before the job did; `connected` says that there was a stream at all.
    Broken { connected: bool, error: anyhow::Error },
}

impl<'a> Watch<'a> {
    /// The watching of a job, with nothing shown yet.
    pub(super) fn of(
        (client, job): (&'a Client, &'a str),
        view: &'a mut dyn View,
        (interrupts, on_interrupt): (&'a mut Interrupts, OnInterrupt),
    ) -> Self {
        Self { client, job, view, interrupts, on_interrupt, interrupted: false, seen: 0 }
    }

    /// Shows all events. A daemon that goes away is waited for as long as the job is patient; the coordinator inside
    /// `run` does not come back.
    pub(super) async fn run(mut self) -> anyhow::Result<Followed> {
        let patience = match self.on_interrupt {
            OnInterrupt::Detach => patience_of(&self.client.get(self.job).await?),
            OnInterrupt::Cancel => Duration::ZERO,
        };
        let mut back_by = None;
        let again = Deadlines::from_patience(patience).retry;
        loop {
            let (connected, error) = match self.stream(back_by.is_some()).await? {
                Told::All(job) => return Ok(Followed { job: Some(*job), interrupted: self.interrupted }),
                Told::Left => return Ok(Followed { job: None, interrupted: true }),
                Told::Broken { connected, error } => (connected, error),
            };
            if connected {
                back_by = None;
            }
            let by = match back_by {
                Some(by) => by,
                None if patience.is_zero() => return Err(error),
                None => {
                    self.view.say(&format!("{error:#}; the daemon is waited for, {patience:?} at most"));
                    *back_by.insert(Instant::now() + patience)
                }
            };
            if Instant::now() >= by {
                return Err(error);
            }
            tokio::select! {
                () = tokio::time::sleep(again) => {}
                () = self.interrupts.next() => {
                    if self.leaves() {
                        return Ok(Followed { job: None, interrupted: true });
                    }
                }
            }
        }
    }

    /// Shows the events of one stream.
    async fn stream(&mut self, was_away: bool) -> anyhow::Result<Told> {
        let mut events = match self.client.watch(self.job, self.seen).await {
            Ok(events) => events,
            Err(status) if is_broken(&status) => {
                return Ok(Told::Broken { connected: false, error: self.client.fault(&status) });
            }
            Err(status) => return Err(self.client.fault(&status)),
        };
        if was_away {
            self.view.say("the daemon is back");
        }
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.interrupts.next() => {
                    if self.leaves() {
                        return Ok(Told::Left);
                    }
                    self.client.cancel(self.job).await?;
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => self.show(event),
                Some(Err(status)) if is_broken(&status) => {
                    return Ok(Told::Broken { connected: true, error: self.client.fault(&status) });
                }
                Some(Err(status)) => return Err(self.client.fault(&status)),
                None => break,
            }
        }
        Ok(match self.client.get(self.job).await {
            Ok(ended) if ended.state.is_final() => Told::All(Box::new(ended)),
            Ok(job) => {
                let error = anyhow!(
                    "the daemon stopped telling about {}, which is {}; go on with squadctl watch {}",
                    self.job,
                    job.state,
                    self.job
                );
                Told::Broken { connected: true, error }
            }
            Err(error) => Told::Broken { connected: true, error },
        })
    }

    fn show(&mut self, event: pb::Event) {
        self.seen = self.seen.max(event.sequence);
        match Event::try_from(event) {
            Ok(event) => self.view.show(&event),
            Err(error) => self.view.say(&format!("an event of a newer daemon was left out: {error}")),
        }
    }

    /// What an interrupt means: whether the watching ends, or the job is to be asked to stop first.
    fn leaves(&mut self) -> bool {
        if self.on_interrupt == OnInterrupt::Detach {
            let job = self.job;
            self.view.say(&format!(
                "{job} goes on; squadctl watch {job} follows it, squadctl cancel {job} ends it"
            ));
            return true;
        }
        if self.interrupted {
            self.view.say("killing the workers");
            return true;
        }
        self.interrupted = true;
        self.view.say("asking the workers to stop; press Ctrl-C again to leave without waiting for them");
        false
    }
}

/// How long a daemon may be away while one of its jobs is watched.
fn patience_of(job: &Job) -> Duration {
    let seconds = job.spec.as_ref().and_then(|spec| spec["fault"]["patience_s"].as_f64());
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.unwrap_or_else(|| Deadlines::default().collective)
}
