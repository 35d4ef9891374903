//! The transition function: what happens to a job as a whole. What its workers do is in `inputs`, how lives and the job
//! end in `endings`.

mod attended;

use std::time::Duration;

use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, Generation, JobState};

use super::blame::Weight;
use super::event::{Action, Event, Order};
use super::memory::{Ending, Memory};
use super::worker::{RankStatus, Worker};

/// Why the present life is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Cancel,
    Failure,
    /// Another life begins, once all workers are gone and this time has passed.
    Restart(Duration),
    /// The job waits for its turn again, once all workers are gone.
    Suspend,
}

/// A job's whole state.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    pub(super) memory: Memory,
    pub(super) deadlines: Deadlines,
    /// How many workers the job was given.
    pub(super) slots: u32,
    /// Fewest workers that it goes on with.
    pub(super) fewest: u32,
    pub(super) state: JobState,
    /// The present life's, by rank.
    pub(super) workers: Vec<Worker>,
    pub(super) started: Duration,
    pub(super) cause: Option<Cause>,
    pub(super) reports: Vec<(Weight, FailureReport)>,
    pub(super) blame_at: Option<Duration>,
    pub(super) term_at: Option<Duration>,
    pub(super) kill_at: Option<Duration>,
    /// SIGKILL was sent.
    pub(super) killed: bool,
    pub(super) restart_at: Option<Duration>,
    /// What the next life is, for people.
    pub(super) next_life: String,
    /// The step that rank 0 stopped after, once its checkpoint was written.
    pub(super) stopped_after: Option<u64>,
    /// What failed while a job was being stopped, such as the writing of its last checkpoint.
    pub(super) failed_late: Option<String>,
    /// The rank that the log has named as late.
    pub(super) named_late: Option<usize>,
    pub(super) results: Option<serde_json::Value>,
    /// Something else places the workers: they are waited for.
    pub(super) attended: bool,
}

impl Machine {
    /// A queued job of `slots` workers, which may be started again `max_restarts` times.
    pub fn new(slots: u32, deadlines: Deadlines, max_restarts: u32) -> Self {
        Self::recall(slots, deadlines, Memory::new(max_restarts))
    }

    /// The same job in a later coordinator. It waits for its turn, or for [`Event::TakeUp`] if it was at work.
    pub fn recall(slots: u32, deadlines: Deadlines, memory: Memory) -> Self {
        Self {
            memory,
            deadlines,
            slots,
            fewest: slots,
            state: JobState::Queued,
            workers: Vec::new(),
            started: Duration::ZERO,
            cause: None,
            reports: Vec::new(),
            blame_at: None,
            term_at: None,
            kill_at: None,
            killed: false,
            restart_at: None,
            next_life: String::new(),
            stopped_after: None,
            failed_late: None,
            named_late: None,
            results: None,
            attended: false,
        }
    }

    /// The same job, which goes on with as few as `fewest` workers where slots are gone for good: by default it needs
    /// all.
    pub fn with_fewest(self, fewest: u32) -> Self {
        Self { fewest: fewest.clamp(1, self.slots.max(1)), ..self }
    }

    /// Where the job is.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// Its present life.
    pub fn generation(&self) -> Generation {
        self.memory.generation
    }

    /// What a later coordinator must know.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many workers the present life has.
    pub fn world(&self) -> u32 {
        self.workers.len() as u32
    }

    /// The slots of the present life's workers, by rank.
    pub fn slots_in_use(&self) -> impl Iterator<Item = u32> + '_ {
        self.workers.iter().map(|worker| worker.slot)
    }

    /// Whether the worker of this slot is rank 0 of a life that works.
    pub fn leads(&self, slot: u32) -> bool {
        let leads = |worker: &Worker| worker.slot == slot && worker.moved.is_some() && !worker.gone;
        self.workers.first().is_some_and(leads)
    }

    /// The workers at time `now`, by rank; none before they are launched.
    pub fn ranks(&self, now: Duration) -> Vec<RankStatus> {
        let launched = self.state != JobState::Queued;
        self.workers.iter().filter(|_| launched).map(|worker| worker.status(now)).collect()
    }

    /// Takes in what happened at time `now`; gives what is to be done, in this order, once [`Self::memory`] is written
    /// down.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.state.is_final() {
            return actions;
        }
        match event {
            Event::Start => self.start(now, &mut actions),
            Event::TakeUp { left, room } => self.take_up(&left, room, now, &mut actions),
            Event::Cancel => self.cancel("a user cancelled it", now, &mut actions),
            Event::Shutdown { comes_back } => self.shut_down(comes_back, now, &mut actions),
            Event::Tick => {}
            Event::Worker { generation, slot, input } => {
                if generation != self.memory.generation || self.state == JobState::Queued {
                    return actions;
                }
                // A slot that was given up is nobody's.
                let Ok(rank) = self.workers.binary_search_by_key(&slot, |worker| worker.slot) else {
                    return actions;
                };
                self.worker(rank, input, now, &mut actions);
            }
        }
        if self.state == JobState::Queued {
            // Nobody is waited for yet.
            return actions;
        }
        if !self.state.is_final() {
            self.deadlines(now, &mut actions);
            self.conclude(now, &mut actions);
        }
        if !self.state.is_final()
            && let Some(next) = self.next_deadline()
        {
            actions.push(Action::Wake(next));
        }
        actions
    }

    pub(super) fn enter(&mut self, state: JobState, reason: impl Into<String>, actions: &mut Vec<Action>) {
        self.state = state;
        actions.push(Action::Record(EventBody::State { state, reason: reason.into() }));
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.state != JobState::Queued {
            return;
        }
        if self.memory.ending.is_some() {
            // It waited for its turn when it was cancelled, and its coordinator did not live to say so.
            self.enter(JobState::Cancelled, "it was cancelled while it waited", actions);
            return;
        }
        let workers = self.slots as usize - self.memory.dropped.len();
        let doing = if self.attended { "waiting for" } else { "launching" };
        let reason = if self.memory.begun {
            format!("{doing} {workers} workers again, {}", self.origin())
        } else {
            format!("{doing} {workers} workers")
        };
        self.begin_life(reason, now, actions);
    }

    /// What the next life begins with, for people.
    pub(super) fn origin(&self) -> &'static str {
        if self.memory.trained { "from the newest checkpoint" } else { "from the start" }
    }

    /// Begins the first or the next life.
    pub(super) fn begin_life(&mut self, reason: impl Into<String>, now: Duration, actions: &mut Vec<Action>) {
        if self.memory.begun {
            self.memory.generation = self.memory.generation.next();
        }
        self.memory.begun = true;
        let slots = (0..self.slots).filter(|slot| !self.memory.dropped.contains(slot));
        self.workers = slots.map(|slot| Worker { slot, heard: now, ..Worker::default() }).collect();
        self.forget();
        self.enter(JobState::Starting, reason, actions);
        self.started = now;
        for (rank, worker) in self.workers.iter().enumerate() {
            actions.push(Action::Launch { slot: worker.slot, rank: rank as u32 });
        }
    }

    /// Forgets what belongs to one life.
    pub(super) fn forget(&mut self) {
        self.reports.clear();
        (self.cause, self.stopped_after, self.failed_late, self.results) = (None, None, None, None);
        (self.blame_at, self.term_at, self.kill_at, self.restart_at) = (None, None, None, None);
        (self.killed, self.named_late) = (false, None);
    }

    /// Goes on with a job that was at work when its coordinator ended: as soon as the workers that are `left` are gone,
    /// which saw the end of their lifeline. Without `room` for it, it waits for its turn then.
    fn take_up(&mut self, left: &[u32], room: bool, now: Duration, actions: &mut Vec<Action>) {
        if self.state != JobState::Queued || !self.memory.begun {
            return;
        }
        self.started = now;
        let worker = |slot| Worker { slot, heard: now, gone: !left.contains(&slot), ..Worker::default() };
        // Of every slot: one that was dropped may have left its worker too.
        self.workers = (0..self.slots).map(worker).collect();
        match self.memory.ending.clone() {
            Some(Ending::Cancelled) => {
                self.cause = Some(Cause::Cancel);
                let reason = "the coordinator ended while the job was being stopped";
                self.enter(JobState::Stopping, reason, actions);
            }
            Some(Ending::Failed(report)) => {
                self.cause = Some(Cause::Failure);
                self.enter(JobState::Stopping, report.to_string(), actions);
                self.reports.push((Weight::Cause, report));
            }
            None => {
                self.cause = Some(if room { Cause::Restart(Duration::ZERO) } else { Cause::Suspend });
                self.next_life = "taken up again by the coordinator".into();
                let lost = "the coordinator ended while the job was at work; its workers are ending";
                let lost = FailureReport::new(FailureCode::CoordinatorLost, lost);
                self.enter(JobState::Restarting, lost.to_string(), actions);
            }
        }
        self.kill_at = Some(now + self.deadlines.kill_after());
    }

    pub(super) fn cancel(&mut self, reason: &str, now: Duration, actions: &mut Vec<Action>) {
        if self.state == JobState::Queued {
            self.memory.ending = Some(Ending::Cancelled);
            self.enter(JobState::Cancelled, reason, actions);
        } else if matches!(self.cause, None | Some(Cause::Restart(_) | Cause::Suspend)) {
            self.memory.ending = Some(Ending::Cancelled);
            self.stop(Cause::Cancel, reason, now, actions);
        }
    }

    /// The coordinator is ending. If it `comes_back`, the job will be gone on with.
    fn shut_down(&mut self, comes_back: bool, now: Duration, actions: &mut Vec<Action>) {
        if !comes_back {
            self.cancel("the coordinator is ending", now, actions);
        } else if self.state != JobState::Queued && matches!(self.cause, None | Some(Cause::Restart(_))) {
            let reason = "the coordinator is ending; the job goes on when it is back";
            self.stop(Cause::Suspend, reason, now, actions);
        }
    }

    /// Ends the present life at a step that all agree on.
    fn stop(&mut self, cause: Cause, reason: &str, now: Duration, actions: &mut Vec<Action>) {
        self.cause = Some(cause);
        (self.blame_at, self.restart_at) = (None, None);
        self.enter(JobState::Stopping, reason, actions);
        self.stop_all(reason, actions);
        self.term_at = Some(now + self.deadlines.stop_grace);
        self.kill_at = Some(now + self.deadlines.kill_after());
    }

    pub(super) fn stop_all(&self, reason: &str, actions: &mut Vec<Action>) {
        for slot in self.present() {
            actions.push(Action::Send { slot, order: Order::Stop { reason: reason.into() } });
        }
    }

    /// Slots of the workers whose process is not known to be gone.
    pub(super) fn present(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().filter(|worker| !worker.gone).map(|worker| worker.slot)
    }
}
