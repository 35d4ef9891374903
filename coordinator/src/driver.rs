//! The task that drives one job: performs what the machine decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use squad_proto::pb::to_worker::Body;
use squad_proto::{EventBody, Fence, Generation, JobId, JobSpec, JobState, Task, Ticket, pb};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tonic::Status;

use crate::job::{Action, Event, Exit, Held, Input, Machine, Memory, Order, Origin};
use crate::launch::{Attendant, Identity, Launching, Process, Sink};
use crate::registry::Registry;

/// How often a worker that an earlier coordinator started is looked at. Fixed: it only paces looks.
const LOOK: Duration = Duration::from_millis(50);

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
        seat: Seat,
        /// It had a session, which broke.
        rejoins: bool,
        /// Whether it is let in; if not, why.
        admit: oneshot::Sender<Result<(), String>>,
    },
    /// Somebody wants to bring the job's results.
    Courier {
        /// The life that it says it belongs to.
        generation: Generation,
        /// Its slot.
        slot: u32,
        /// Whether it may; if not, why.
        admit: oneshot::Sender<Result<(), String>>,
    },
    /// A session ended.
    SessionClosed {
        /// The worker's life.
        generation: Generation,
        /// Which worker.
        slot: u32,
        /// Which of its sessions.
        number: u64,
    },
    /// Somebody attends to a slot.
    Enlist {
        /// Which.
        slot: u32,
        /// How many slots its launcher says there are.
        world: u32,
        /// Who.
        attendant: Attendant,
        /// Whether it is let in, and where its worker's output goes; if not, why.
        admit: oneshot::Sender<Result<Sink, Status>>,
    },
    /// The connection to an attendant ended.
    AttendantGone {
        /// Its slot.
        slot: u32,
        /// Who.
        instance: String,
    },
}

/// A worker's session, as the driver knows it.
pub(crate) struct Seat {
    /// Which session it is.
    pub(crate) number: u64,
    /// How to answer; nothing once it is closed. The slot is taken all the same.
    pub(crate) outbound: Option<Outbound>,
}

/// What a job's workers are told at birth.
pub(crate) struct Assignment {
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    pub(crate) task: Task,
    pub(crate) token: String,
    pub(crate) server: String,
    /// How many workers the job was given.
    pub(crate) slots: u32,
}

type Sessions = BTreeMap<u32, Seat>;

/// One job's driver.
pub(crate) struct Driver {
    pub(crate) registry: Registry,
    pub(crate) machine: Machine,
    pub(crate) launching: Launching,
    pub(crate) job: Assignment,
    /// How long a worker that is to be killed may be unheard of where nothing but its attendant can kill it.
    pub(crate) silence: Duration,
    /// Workers that an earlier coordinator started and that still live, by slot.
    pub(crate) left: BTreeMap<u32, Identity>,
}

/// What is performed at once.
enum Deed {
    /// What follows each other in the history is written down together: a coordinator that dies leaves no failure
    /// without the end that it led to, and no results without theirs.
    Records(Vec<EventBody>),
    Other(Action),
}

fn together(actions: Vec<Action>) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for action in actions {
        match (action, deeds.last_mut()) {
            (Action::Record(body), Some(Deed::Records(bodies))) => bodies.push(body),
            (Action::Record(body), _) => deeds.push(Deed::Records(vec![body])),
            (action, _) => deeds.push(Deed::Other(action)),
        }
    }
    deeds
}

/// Where a job's workers' output is.
pub(crate) fn log_folder(output_dir: &str, job: &JobId) -> PathBuf {
    Path::new(output_dir).join("logs").join(job.as_str())
}

impl Driver {
    /// Drives the job to its end, or to that of the coordinator if another one goes on with it.
    pub(crate) async fn run(mut self, mut inbox: UnboundedReceiver<Inbox>) {
        let born = Instant::now();
        let (to_self, mut own) = unbounded_channel();
        let mut sessions: Sessions = BTreeMap::new();
        self.attend_left(&to_self);
        let mut known = None;
        let mut wake = None;
        let mut ending = false;
        while !(self.machine.state().is_final() || ending && self.machine.state() == JobState::Queued) {
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(born + at)).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                Some(message) = inbox.recv() => match self.take_in(message, &mut sessions, &to_self) {
                    Some(event) => event,
                    None => continue,
                },
                Some(event) = own.recv() => event,
                () = timer => Event::Tick,
            };
            ending |= matches!(event, Event::Shutdown { comes_back: true });
            let life = self.machine.generation();
            if let Event::Worker { generation, slot, input: Input::Exited(exit, _) } = &event
                && *generation == life
            {
                match &mut self.launching {
                    Launching::Local { running, .. } => drop(running.remove(slot)),
                    Launching::External(attendants) => attendants.gone(*slot, *exit == Exit::Lost),
                }
            }
            let timer_fired = matches!(event, Event::Tick);
            let actions = self.machine.step(event, born.elapsed());
            if self.machine.generation() != life {
                // A new life: its workers take the slots anew.
                sessions.clear();
            }
            self.remember(&mut known);
            self.registry.set_ranks(&self.job.id, self.machine.ranks(born.elapsed()));
            // A stale message changes nothing, not even the timer.
            if timer_fired || !actions.is_empty() {
                wake = None;
            }
            for deed in together(actions) {
                match deed {
                    Deed::Records(bodies) => self.record(bodies),
                    Deed::Other(Action::Wake(at)) => wake = Some(at),
                    Deed::Other(action) => self.perform(action, &sessions, &to_self).await,
                }
            }
        }
        self.registry.schedule();
    }

    /// Watches the workers that an earlier coordinator left, which are not this process's children.
    fn attend_left(&mut self, to_self: &UnboundedSender<Event>) {
        let generation = self.machine.generation();
        for (slot, identity) in std::mem::take(&mut self.left) {
            let (watched, on_exit) = (identity.clone(), to_self.clone());
            tokio::spawn(async move {
                while watched.lives() {
                    tokio::time::sleep(LOOK).await;
                }
                let input = Input::Exited(Exit::Unseen, Vec::new());
                // The receiver is gone only when the job has ended.
                on_exit.send(Event::Worker { generation, slot, input }).ok();
            });
            if let Launching::Local { running, .. } = &mut self.launching {
                running.insert(slot, Process::Left(identity));
            }
        }
    }

    /// Writes down what a later coordinator must know, before anything is done that it must know of.
    fn remember(&self, known: &mut Option<Memory>) {
        let memory = self.machine.memory();
        if known.as_ref() != Some(memory) {
            *known = Some(memory.clone());
            self.registry.remember(&self.job.id, memory.clone());
        }
    }

    async fn perform(&mut self, action: Action, sessions: &Sessions, to_self: &UnboundedSender<Event>) {
        match action {
            Action::Launch { slot, rank } => self.launch((slot, rank), to_self).await,
            Action::Send { slot, order } => {
                let seat = sessions.get(&slot).and_then(|seat| seat.outbound.as_ref());
                self.say(slot, seat, order);
            }
            Action::Kill { slot, hard } => self.kill(slot, hard, to_self),
            Action::Record(body) => self.record(vec![body]),
            Action::Wake(_) => {}
        }
    }

    /// Keeps account of who is connected; what is left is for the machine.
    fn take_in(
        &mut self,
        message: Inbox,
        sessions: &mut Sessions,
        to_self: &UnboundedSender<Event>,
    ) -> Option<Event> {
        match message {
            Inbox::Event(event) => return Some(event),
            Inbox::Session { generation, slot, seat, rejoins, admit } => {
                let taken = sessions.contains_key(&slot) && !(rejoins && self.is_external());
                let answer = self.admission(generation, slot, taken);
                if answer.is_ok() {
                    sessions.insert(slot, seat);
                }
                // A worker that hung up meanwhile is followed by its process's end.
                admit.send(answer).ok();
            }
            Inbox::Courier { generation, slot, admit } => {
                let answer = self.admission(generation, slot, false).and_then(|()| {
                    let leads = self.machine.leads(slot);
                    leads.then_some(()).ok_or_else(|| format!("slot {slot} is not rank 0 at work"))
                });
                // One that hung up meanwhile asks again.
                admit.send(answer).ok();
            }
            Inbox::SessionClosed { generation, slot, number } => {
                if generation != self.machine.generation() {
                    return None;
                }
                let seat = sessions.get_mut(&slot).filter(|seat| seat.number == number)?;
                // Closing our half tells the worker that all it said was taken in; only then it exits, so
                // that its end never overtakes its results.
                seat.outbound = None;
                if let Launching::External(attendants) = &self.launching
                    && attendants.is_orphan(slot)
                {
                    self.lost(slot, to_self);
                }
                return Some(Event::Worker { generation, slot, input: Input::SessionClosed });
            }
            Inbox::Enlist { slot, world, attendant, admit } => {
                let (host, pid) = (attendant.host.clone(), attendant.pid);
                let answer = match &mut self.launching {
                    Launching::External(attendants) => attendants.enlist(slot, world, attendant),
                    Launching::Local { .. } => Err(Status::failed_precondition(
                        "the coordinator launches this job's workers itself; submit it with --external",
                    )),
                };
                if answer.is_ok() {
                    tracing::info!("{}: rank {slot} is attended to by process {pid} on {host}", self.job.id);
                }
                // One that hung up meanwhile is followed by the end of its stream.
                admit
                    .send(
                        answer.map(|()| Sink::new(&self.log(slot), self.registry.config().limits.log_bytes)),
                    )
                    .ok();
            }
            Inbox::AttendantGone { slot, instance } => {
                let open = sessions.get(&slot).is_some_and(|seat| seat.outbound.is_some());
                if let Launching::External(attendants) = &mut self.launching
                    && attendants.lost(slot, &instance)
                    && !open
                {
                    self.lost(slot, to_self);
                }
            }
        }
        None
    }

    fn is_external(&self) -> bool {
        matches!(self.launching, Launching::External(_))
    }

    /// A worker and its attendant are out of sight.
    fn lost(&self, slot: u32, to_self: &UnboundedSender<Event>) {
        let generation = self.machine.generation();
        let input = Input::Exited(Exit::Lost, Vec::new());
        // The receiver is gone only when the job has ended.
        to_self.send(Event::Worker { generation, slot, input }).ok();
    }

    fn kill(&mut self, slot: u32, hard: bool, to_self: &UnboundedSender<Event>) {
        let generation = self.machine.generation();
        match &mut self.launching {
            Launching::Local { running, .. } => {
                if let Some(process) = running.get(&slot) {
                    process.kill(hard);
                }
            }
            Launching::External(attendants) => {
                if !attendants.kill(slot, generation, hard) {
                    self.lost(slot, to_self);
                } else if hard {
                    // A machine that is cut off answers nothing.
                    let (silence, to_self) = (self.silence, to_self.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(silence).await;
                        let input = Input::Exited(Exit::Lost, Vec::new());
                        to_self.send(Event::Worker { generation, slot, input }).ok();
                    });
                }
            }
        }
    }

    /// Whether a session may take a slot. A stale or a second one must not get between a worker and its orders.
    fn admission(&self, generation: Generation, slot: u32, taken: bool) -> Result<(), String> {
        let (id, present) = (&self.job.id, self.machine.generation());
        if generation != present {
            return Err(format!(
                "generation {generation} of {id} is not the present one, which is {present}"
            ));
        }
        if slot >= self.job.slots {
            return Err(format!("{id} has slots 0 to {}, not {slot}", self.job.slots - 1));
        }
        if taken { Err(format!("slot {slot} of {id} has joined already")) } else { Ok(()) }
    }

    fn log(&self, rank: u32) -> PathBuf {
        log_folder(&self.job.spec.output_dir, &self.job.id).join(format!("rank-{rank}.log"))
    }

    async fn launch(&mut self, (slot, rank): (u32, u32), to_self: &UnboundedSender<Event>) {
        let generation = self.machine.generation();
        let ticket = self.ticket(generation, slot);
        let log = self.log(rank);
        let (registry, id) = (self.registry.clone(), self.job.id.clone());
        let born = move |identity| registry.born(&id, slot, identity);
        let on_exit = to_self.clone();
        let event = move |input| Event::Worker { generation, slot, input };
        let gpus = self.registry.visible_gpus(&self.job.id, self.machine.slots_in_use());
        let failed = match &mut self.launching {
            Launching::Local { launcher, running } => {
                // The receiver is gone only when the job has ended.
                let ended = move |exit, tail| drop(on_exit.send(event(Input::Exited(exit, tail))));
                match launcher.launch((&ticket, gpus), &log, born, ended).await {
                    Ok(launched) => {
                        running.insert(slot, Process::Launched(launched));
                        None
                    }
                    Err(message) => Some(message),
                }
            }
            Launching::External(attendants) => {
                // The attendant has the token, and nobody on the way needs it.
                let ticket = Ticket { token: String::new(), attended: true, ..ticket };
                match serde_json::to_string(&ticket) {
                    Ok(ticket) => {
                        attendants.start(slot, generation, ticket);
                        None
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
        };
        if let Some(message) = failed {
            to_self.send(event(Input::LaunchFailed(message))).ok();
        }
    }

    fn ticket(&self, generation: Generation, slot: u32) -> Ticket {
        let world = self.machine.world();
        Ticket {
            server: self.job.server.clone(),
            certificates: None,
            job: self.job.id.clone(),
            generation,
            slot,
            world,
            token: self.job.token.clone(),
            spec: self.job.spec.clone(),
            // A later life goes on because the output folder says that it is this job's.
            task: self.job.task.clone(),
            threads: self.registry.config().threads_of(world),
            attended: false,
        }
    }

    fn say(&self, slot: u32, session: Option<&Outbound>, order: Order) {
        let body = match order {
            Order::Assign { rank, world } => {
                let local_rank = match &self.launching {
                    Launching::Local { .. } => Some(rank),
                    Launching::External(attendants) => attendants.local_rank(slot),
                };
                Body::Assign(pb::Assign { rank, world, local_rank: local_rank.unwrap_or(rank) })
            }
            Order::Begin { peers, origin } => {
                let origin = origin.map(|Origin { checkpoint: Held { step, identity }, holder, .. }| {
                    pb::Origin { checkpoint: Some(pb::HeldCheckpoint { step, identity }), holder }
                });
                Body::Begin(pb::Begin { peers, origin })
            }
            Order::Stop { reason } => Body::Stop(pb::Stop { reason }),
        };
        let fence = Fence { job: self.job.id.clone(), generation: self.machine.generation() };
        if let Some(session) = session {
            // A session that is gone is followed by the process's end.
            session.send(Ok(pb::ToWorker { fence: Some((&fence).into()), body: Some(body) })).ok();
        }
    }

    fn record(&self, bodies: Vec<EventBody>) {
        for body in &bodies {
            match body {
                EventBody::State { state, reason } => {
                    tracing::info!("{}: {state}: {reason}", self.job.id);
                    if let Launching::External(attendants) = &self.launching
                        && state.is_final()
                    {
                        attendants.end(*state, reason);
                    }
                }
                EventBody::Failure(report) => tracing::warn!("{}: {report}", self.job.id),
                _ => {}
            }
        }
        self.registry.record(&self.job.id, bodies);
    }
}
