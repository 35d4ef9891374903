//! One slot's attendant: starts the worker of each life when the coordinator says so, tells of its end, and goes on
//! until the job has come to its final state.

use std::time::Duration;

use anyhow::{Context, bail};
use squad_proto::pb::from_attendant::Body as Say;
use squad_proto::pb::to_attendant::Body as Hear;
use squad_proto::{Deadlines, Generation, JobState, Ticket, pb};
use tokio::sync::mpsc::{Receiver, UnboundedSender, channel};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::link::{Link, Source};
use super::process::{Process, Sign};

/// Lines of output that wait for the coordinator.
const LINES: usize = 1024;
/// Lines in one message.
const BATCH: usize = 64;

/// How attending ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The job came to its final state.
    Job(JobState, String),
    /// A signal asked this process to leave before that.
    Left,
}

/// A slot and where its workers come from.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The rank.
    pub(crate) rank: u32,
    /// How many ranks the launcher says there are.
    pub(crate) world: u32,
    /// The rank's number among those of its host.
    pub(crate) local_rank: u32,
    /// Threads of its worker.
    pub(crate) threads: usize,
    /// The worker's output is repeated on standard error.
    pub(crate) echo: bool,
}

/// An attendant at work.
pub(crate) struct Attendant {
    slot: Slot,
    source: Source,
    leave: watch::Receiver<bool>,
    process: Option<Process>,
    /// A worker that is to be started once the one before is gone.
    next: Option<Ticket>,
    signs: Receiver<Sign>,
    sign: tokio::sync::mpsc::Sender<Sign>,
    /// What could not be said for want of a connection.
    unsaid: Vec<Say>,
    /// When a worker that was asked to leave is killed.
    leave_by: Option<Instant>,
}

/// What a connection ended with.
enum Broken {
    /// Nothing more is to be done.
    Ended(Ended),
    /// It is to be made again.
    Lost,
}

impl Attendant {
    /// An attendant of a slot. `leave` turns true when the process is asked to end.
    pub(crate) fn new(slot: Slot, source: Source, leave: watch::Receiver<bool>) -> Self {
        let (sign, signs) = channel(LINES);
        Self {
            slot,
            source,
            leave,
            process: None,
            next: None,
            signs,
            sign,
            unsaid: Vec::new(),
            leave_by: None,
        }
    }

    /// Attends until the job has ended, or this process is asked to leave.
    ///
    /// # Errors
    /// When the coordinator refuses, or cannot be reached for too long.
    pub(crate) async fn run(mut self) -> anyhow::Result<Ended> {
        loop {
            let running = self.process.as_ref().map(|process| process.generation);
            let mut leave = self.leave.clone();
            let left = async {
                // An error means that nobody can ask any more.
                if leave.wait_for(|leave| *leave).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let link = tokio::select! {
                link = self.source.connect(&self.slot, running) => link,
                () = left => {
                    if let Some(process) = &self.process {
                        process.kill(false);
                        self.await_end().await;
                    }
                    return Ok(Ended::Left);
                }
            };
            let link = match link {
                Ok(link) => link,
                Err(error) => {
                    // The worker has given up as well by now, or does when its lifeline ends.
                    self.await_end().await;
                    return Err(error);
                }
            };
            match self.attend(link).await? {
                Broken::Ended(ended) => return Ok(ended),
                Broken::Lost => tracing::warn!("the connection to the coordinator broke; trying again"),
            }
        }
    }

    /// Gives the worker time to leave complete files behind, after whatever made it end.
    async fn await_end(&mut self) {
        let grace = self.source.deadlines().stop_grace;
        let ended = async {
            while self.process.is_some() {
                match self.signs.recv().await {
                    Some(Sign::Exited { .. }) | None => self.process = None,
                    Some(Sign::Line(text)) => self.slot.repeat(&text),
                }
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!("the worker did not end within {grace:?}: it is killed");
        }
    }

    async fn attend(&mut self, link: Link) -> anyhow::Result<Broken> {
        let Link { say, mut hear } = link;
        for body in std::mem::take(&mut self.unsaid) {
            tell(&say, body);
        }
        let mut leave = self.leave.clone();
        let deadlines = self.source.deadlines();
        loop {
            let give_up = self.leave_by;
            let given_up = async {
                match give_up {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = hear.next() => {
                    let body = match message {
                        Some(Ok(message)) => message.body,
                        Some(Err(status)) => {
                            tracing::debug!("the stream broke: {status}");
                            return Ok(Broken::Lost);
                        }
                        None => return Ok(Broken::Lost),
                    };
                    match body {
                        Some(Hear::Start(start)) => self.wish(start).await?,
                        Some(Hear::Kill(kill)) => self.kill(&kill),
                        Some(Hear::Ended(end)) => return self.ended(&end).await.map(Broken::Ended),
                        None => {}
                    }
                }
                Some(sign) = self.signs.recv() => {
                    for body in self.account(sign).await {
                        tell(&say, body);
                    }
                }
                changed = leave.changed(), if self.leave_by.is_none() => {
                    if changed.is_err() || !*leave.borrow() {
                        continue;
                    }
                    self.leave_by = Some(Instant::now() + deadlines.stop_grace * 2);
                    if let Some(process) = &self.process {
                        tracing::info!("asked to leave: the workers stop at one step, with a checkpoint");
                        process.kill(false);
                    }
                }
                () = given_up => {
                    tracing::warn!("the worker did not stop in time: it is killed");
                    self.process = None;
                }
            }
            while let Some(body) = self.unsaid.pop() {
                tell(&say, body);
            }
            if self.leave_by.is_some() && self.process.is_none() {
                drop(say);
                drain(hear, deadlines.farewell).await;
                return Ok(Broken::Ended(Ended::Left));
            }
        }
    }

    /// Starts a worker, once an older one is gone.
    async fn wish(&mut self, start: pb::StartWorker) -> anyhow::Result<()> {
        let ticket: Ticket = serde_json::from_str(&start.ticket_json)
            .context("the coordinator sent a ticket that this version does not understand")?;
        let ticket = self.source.complete(ticket, self.slot.threads);
        match &self.process {
            Some(process) if process.generation == ticket.generation => return Ok(()),
            Some(process) => {
                // A coordinator that came back knows nothing of this life, which may yet leave a checkpoint.
                process.end_within(self.source.deadlines().stop_grace);
                self.next = Some(ticket);
            }
            None if self.leave_by.is_some() => {}
            None => self.start(ticket).await,
        }
        Ok(())
    }

    async fn start(&mut self, ticket: Ticket) {
        let generation = ticket.generation;
        tracing::info!("starting the worker of generation {generation} as rank {}", ticket.slot);
        match Process::start(&ticket, self.sign.clone()).await {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                let reason = format!("{error:#}");
                let fault = pb::WorkerNotStarted { generation: generation.0, reason };
                self.unsaid.push(Say::NotStarted(fault));
            }
        }
    }

    fn kill(&self, kill: &pb::KillWorker) {
        if let Some(process) = &self.process
            && process.generation == Generation(kill.generation)
        {
            process.kill(kill.hard);
        }
    }

    /// Takes in what the worker's process did; gives what is to be said of it.
    async fn account(&mut self, sign: Sign) -> Vec<Say> {
        match sign {
            Sign::Line(text) => {
                self.slot.repeat(&text);
                let mut lines = vec![text];
                let mut said = Vec::new();
                while lines.len() < BATCH {
                    match self.signs.try_recv() {
                        Ok(Sign::Line(text)) => {
                            self.slot.repeat(&text);
                            lines.push(text);
                        }
                        Ok(exited) => {
                            said.extend(self.exited(exited).await);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                said.insert(0, Say::Output(pb::WorkerOutput { lines }));
                said
            }
            exited => self.exited(exited).await.into_iter().collect(),
        }
    }

    async fn exited(&mut self, sign: Sign) -> Option<Say> {
        use std::os::unix::process::ExitStatusExt;
        let Sign::Exited { generation, status, tail, starved } = sign else { return None };
        if self.process.as_ref().is_some_and(|process| process.generation == generation) {
            self.process = None;
        }
        let (code, signal) = match status {
            Ok(status) => (status.code(), status.signal()),
            Err(error) => {
                tracing::error!("cannot wait for the worker: {error}");
                (Some(-1), None)
            }
        };
        if let Some(ticket) = self.next.take()
            && self.leave_by.is_none()
        {
            self.start(ticket).await;
        }
        let killed = signal == Some(nix::sys::signal::Signal::SIGKILL as i32);
        let out_of_memory =
            starved.filter(|_| killed).map(|cause| pb::OutOfMemory { limit_bytes: cause.limit });
        let generation = generation.0;
        Some(Say::Exited(pb::WorkerExited { generation, code, signal, stderr_tail: tail, out_of_memory }))
    }

    async fn ended(&mut self, end: &pb::JobEnded) -> anyhow::Result<Ended> {
        let Ok(state) = JobState::try_from(end.state()) else {
            bail!("the coordinator ended the job in a state that this version does not know");
        };
        if let Some(process) = &self.process {
            process.kill(false);
            self.await_end().await;
        }
        Ok(Ended::Job(state, end.reason.clone()))
    }
}

impl Slot {
    #[allow(clippy::print_stderr, reason = "the worker's own lines, for the launcher's log")]
    fn repeat(&self, text: &str) {
        if self.echo {
            eprintln!("[rank {}] {text}", self.rank);
        }
    }
}

fn tell(say: &UnboundedSender<pb::FromAttendant>, body: Say) {
    // A broken connection is noticed where it is read; the end of a worker whose attendant is out of sight is
    // known to the coordinator by then.
    say.send(pb::FromAttendant { body: Some(body) }).ok();
}

/// Waits until the coordinator has taken in everything.
async fn drain(mut hear: Streaming<pb::ToAttendant>, farewell: Duration) {
    let drained = async { while let Some(Ok(_)) = hear.next().await {} };
    if tokio::time::timeout(farewell, drained).await.is_err() {
        tracing::warn!("the coordinator did not close the session");
    }
}

/// How long a job's parties wait for each other, before its patience is known and after.
pub(crate) fn deadlines(patience_s: Option<f64>) -> Deadlines {
    patience_s
        .map_or_else(Deadlines::default, |seconds| Deadlines::from_patience(Duration::from_secs_f64(seconds)))
}
