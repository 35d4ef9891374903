//! The task that drives one job: performs what the machine decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use squad_proto::pb::to_worker::Body;
use squad_proto::{EventBody, Fence, Generation, JobId, JobSpec, Task, Ticket, pb};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tonic::Status;

use crate::job::{Action, Event, Input, Machine, Order};
use crate::launch::{Launched, LocalLauncher};
use crate::registry::Registry;

/// What workers are told through.
pub(crate) type Outbound = UnboundedSender<Result<pb::ToWorker, Status>>;

/// What a driver hears.
pub(crate) enum Inbox {
    /// Something for the machine.
    Event(Event),
    /// A worker opened its session.
    Session {
        /// The life that it says it belongs to.
        generation: Generation,
        /// Which.
        slot: u32,
        /// How to answer.
        outbound: Outbound,
        /// Whether it is let in; if not, why.
        admit: oneshot::Sender<Result<(), String>>,
    },
}

/// What a job's workers are told at birth.
pub(crate) struct Assignment {
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    pub(crate) task: Task,
    pub(crate) token: String,
    pub(crate) server: String,
    pub(crate) threads: usize,
    pub(crate) world: u32,
}

/// One job's driver.
pub(crate) struct Driver {
    pub(crate) registry: Registry,
    pub(crate) machine: Machine,
    pub(crate) launcher: LocalLauncher,
    pub(crate) job: Assignment,
}

/// Where a job's workers' output is.
pub(crate) fn log_folder(output_dir: &str, job: &JobId) -> PathBuf {
    Path::new(output_dir).join("logs").join(job.as_str())
}

impl Driver {
    /// Drives the job to its end.
    pub(crate) async fn run(mut self, mut inbox: UnboundedReceiver<Inbox>) {
        let born = Instant::now();
        let (to_self, mut own) = unbounded_channel();
        let mut processes: BTreeMap<u32, Launched> = BTreeMap::new();
        // A session that was closed stays as `None`: its slot is taken all the same.
        let mut sessions: BTreeMap<u32, Option<Outbound>> = BTreeMap::new();
        let mut wake = None;
        while !self.machine.state().is_final() {
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(born + at)).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                Some(message) = inbox.recv() => match message {
                    Inbox::Event(event) => event,
                    Inbox::Session { generation, slot, outbound, admit } => {
                        let answer = self.admission(generation, slot, sessions.contains_key(&slot));
                        if answer.is_ok() {
                            sessions.insert(slot, Some(outbound));
                        }
                        // A worker that hung up meanwhile is followed by its process's end.
                        admit.send(answer).ok();
                        continue;
                    }
                },
                Some(event) = own.recv() => event,
                () = timer => Event::Tick,
            };
            let life = self.machine.generation();
            match &event {
                Event::Worker { generation, .. } if *generation != life => {}
                // Closing our half tells the worker that all it said was taken in; only then it exits, so
                // that its end never overtakes its results.
                Event::Worker { slot, input: Input::SessionClosed, .. } => {
                    sessions.insert(*slot, None);
                }
                Event::Worker { slot, input: Input::Exited(..), .. } => {
                    processes.remove(slot);
                }
                _ => {}
            }
            let timer_fired = matches!(event, Event::Tick);
            let actions = self.machine.step(event, born.elapsed());
            if self.machine.generation() != life {
                // A new life: its workers take the slots anew.
                sessions.clear();
            }
            self.registry.set_ranks(&self.job.id, self.machine.ranks(born.elapsed()));
            // A stale message changes nothing, not even the timer.
            if timer_fired || !actions.is_empty() {
                wake = None;
            }
            for action in actions {
                match action {
                    Action::Launch { slot } => {
                        if let Some(launched) = self.launch(slot, &to_self).await {
                            processes.insert(slot, launched);
                        }
                    }
                    Action::Send { slot, order } => {
                        self.say(sessions.get(&slot).and_then(Option::as_ref), order)
                    }
                    Action::Kill { slot, hard } => {
                        if let Some(process) = processes.get(&slot) {
                            process.kill(hard);
                        }
                    }
                    Action::Record(body) => self.record(body),
                    Action::Wake(at) => wake = Some(at),
                }
            }
        }
        self.registry.schedule();
    }

    /// Whether a session may take a slot. A stale or a second one must not get between a worker and its orders.
    fn admission(&self, generation: Generation, slot: u32, taken: bool) -> Result<(), String> {
        let (id, present) = (&self.job.id, self.machine.generation());
        if generation != present {
            return Err(format!(
                "generation {generation} of {id} is not the present one, which is {present}"
            ));
        }
        if slot >= self.job.world {
            return Err(format!("{id} has slots 0 to {}, not {slot}", self.job.world - 1));
        }
        if taken { Err(format!("slot {slot} of {id} has joined already")) } else { Ok(()) }
    }

    async fn launch(&self, slot: u32, to_self: &UnboundedSender<Event>) -> Option<Launched> {
        let generation = self.machine.generation();
        let ticket = Ticket {
            server: self.job.server.clone(),
            job: self.job.id.clone(),
            generation,
            slot,
            world: self.job.world,
            token: self.job.token.clone(),
            spec: self.job.spec.clone(),
            task: match &self.job.task {
                Task::Train { resume, timeline } => {
                    Task::Train { resume: *resume || self.machine.goes_on(), timeline: timeline.clone() }
                }
                evaluate => evaluate.clone(),
            },
            threads: self.job.threads,
        };
        let log = log_folder(&self.job.spec.output_dir, &self.job.id).join(format!("rank-{slot}.log"));
        let on_exit = to_self.clone();
        let event = move |input| Event::Worker { generation, slot, input };
        // The receiver is gone only when the job has ended.
        let ended = move |exit, tail| drop(on_exit.send(event(Input::Exited(exit, tail))));
        match self.launcher.launch(&ticket, &log, ended).await {
            Ok(launched) => Some(launched),
            Err(message) => {
                to_self.send(event(Input::LaunchFailed(message))).ok();
                None
            }
        }
    }

    fn say(&self, session: Option<&Outbound>, order: Order) {
        let body = match order {
            Order::Assign { rank, world } => Body::Assign(pb::Assign { rank, world, local_rank: rank }),
            Order::Begin { peers } => Body::Begin(pb::Begin { peers }),
            Order::Stop { reason } => Body::Stop(pb::Stop { reason }),
        };
        let fence = Fence { job: self.job.id.clone(), generation: self.machine.generation() };
        if let Some(session) = session {
            // A session that is gone is followed by the process's end.
            session.send(Ok(pb::ToWorker { fence: Some((&fence).into()), body: Some(body) })).ok();
        }
    }

    fn record(&self, body: EventBody) {
        match &body {
            EventBody::State { state, reason } => tracing::info!("{}: {state}: {reason}", self.job.id),
            EventBody::Failure(report) => tracing::warn!("{}: {report}", self.job.id),
            _ => {}
        }
        self.registry.record(&self.job.id, body);
    }
}
