//! The transition function.

mod attended;

use std::time::Duration;

use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, Generation, JobState, Phase};

use super::blame::{self, Weight};
use super::event::{Action, Event, Exit, Input, Order};
use super::late::{Told, late};
use super::rendezvous::{Having, disagreement};
use super::restart::Restarts;
use super::worker::{RankStatus, Worker};

/// How long echoes are collected before the first one is believed.
const BLAME_WINDOW: Duration = Duration::from_secs(2);

/// Why the present life is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Cancel,
    Failure,
    /// A failure after which another life begins, once all workers are gone and this time has passed.
    Restart(Duration),
}

/// A job's whole state.
#[derive(Clone, Debug)]
pub struct Machine {
    generation: Generation,
    deadlines: Deadlines,
    state: JobState,
    workers: Vec<Worker>,
    started: Duration,
    cause: Option<Cause>,
    reports: Vec<(Weight, FailureReport)>,
    blame_at: Option<Duration>,
    term_at: Option<Duration>,
    kill_at: Option<Duration>,
    restarts: Restarts,
    restart_at: Option<Duration>,
    /// Some life has trained: the output folder is this job's.
    trained: bool,
    /// The step that rank 0 stopped after, once its checkpoint was written.
    stopped_after: Option<u64>,
    /// What failed while a cancelled job was ending, such as the writing of its last checkpoint.
    failed_late: Option<String>,
    /// The rank that the log has named as late.
    named_late: Option<usize>,
    results: Option<serde_json::Value>,
    /// Something else places the workers: they are waited for.
    attended: bool,
}

impl Machine {
    /// A queued job of `world` workers, which may be started again `max_restarts` times.
    pub fn new(world: u32, deadlines: Deadlines, max_restarts: u32) -> Self {
        Self {
            generation: Generation::FIRST,
            deadlines,
            state: JobState::Queued,
            workers: vec![Worker::default(); world as usize],
            started: Duration::ZERO,
            cause: None,
            reports: Vec::new(),
            blame_at: None,
            term_at: None,
            kill_at: None,
            restarts: Restarts::new(max_restarts),
            restart_at: None,
            trained: false,
            stopped_after: None,
            failed_late: None,
            named_late: None,
            results: None,
            attended: false,
        }
    }

    /// Where the job is.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// Its present life.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the present life goes on with what an earlier one of this job trained. One that was lost before its
    /// first step may have left an older job's checkpoints in their place.
    pub fn goes_on(&self) -> bool {
        self.trained && self.generation > Generation::FIRST
    }

    /// The workers at time `now`, by rank; none before they are launched.
    pub fn ranks(&self, now: Duration) -> Vec<RankStatus> {
        let launched = self.state != JobState::Queued;
        self.workers.iter().filter(|_| launched).map(|worker| worker.status(now)).collect()
    }

    /// Takes in what happened at time `now`; gives what is to be done, in this order.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.state.is_final() {
            return actions;
        }
        match event {
            Event::Start => self.start(now, &mut actions),
            Event::Cancel => self.cancel("a user cancelled it", now, &mut actions),
            Event::Shutdown => self.cancel("the coordinator is ending", now, &mut actions),
            Event::Tick => {}
            Event::Worker { generation, slot, input } => {
                if generation != self.generation || self.state == JobState::Queued {
                    return actions;
                }
                let slot = slot as usize;
                if slot < self.workers.len() {
                    self.worker(slot, input, now, &mut actions);
                }
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

    fn enter(&mut self, state: JobState, reason: impl Into<String>, actions: &mut Vec<Action>) {
        self.state = state;
        actions.push(Action::Record(EventBody::State { state, reason: reason.into() }));
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.state != JobState::Queued {
            return;
        }
        let doing = if self.attended { "waiting for" } else { "launching" };
        self.enter(JobState::Starting, format!("{doing} {} workers", self.workers.len()), actions);
        self.launch(now, actions);
    }

    fn launch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.started = now;
        for (slot, worker) in self.workers.iter_mut().enumerate() {
            worker.heard = now;
            actions.push(Action::Launch { slot: slot as u32 });
        }
    }

    fn cancel(&mut self, reason: &str, now: Duration, actions: &mut Vec<Action>) {
        if self.state == JobState::Queued {
            self.enter(JobState::Cancelled, reason, actions);
        } else if matches!(self.cause, None | Some(Cause::Restart(_))) {
            self.cause = Some(Cause::Cancel);
            self.blame_at = None;
            self.restart_at = None;
            self.enter(JobState::Stopping, reason, actions);
            self.stop_all(reason, actions);
            self.term_at = Some(now + self.deadlines.stop_grace);
            self.kill_at = Some(now + self.deadlines.stop_grace + BLAME_WINDOW);
        }
    }

    fn stop_all(&self, reason: &str, actions: &mut Vec<Action>) {
        for slot in self.present() {
            actions.push(Action::Send { slot, order: Order::Stop { reason: reason.into() } });
        }
    }

    /// Workers whose process is not known to be gone.
    fn present(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().enumerate().filter(|(_, w)| !w.gone).map(|(slot, _)| slot as u32)
    }

    fn worker(&mut self, slot: usize, input: Input, now: Duration, actions: &mut Vec<Action>) {
        let rank = slot as u32;
        if self.workers[slot].gone {
            return;
        }
        if !matches!(input, Input::Exited(..) | Input::LaunchFailed(_) | Input::SessionClosed) {
            self.workers[slot].heard = now;
        }
        match input {
            Input::LaunchFailed(message) => {
                self.workers[slot].gone = true;
                self.report(FailureReport::new(FailureCode::Launch, message).of_rank(rank), now, actions);
            }
            Input::Hello { ring } => self.hello(slot, ring, actions),
            Input::Ready(having) => self.ready(slot, having, now, actions),
            Input::Beat { phase, done } => self.locate(slot, phase, done),
            Input::Doing(doing) => self.workers[slot].doing = Some(Told::new(doing, now)),
            Input::Progress(progress) => {
                self.locate(slot, progress.phase, progress.done);
                // Rank 0 speaks for all.
                if rank == 0 {
                    actions.push(Action::Record(EventBody::Progress(progress)));
                }
            }
            Input::Note(text) => {
                if rank == 0 {
                    actions.push(Action::Record(EventBody::Note { rank: Some(rank), text }));
                }
            }
            Input::Failure(report) => self.report(report.of_rank(rank), now, actions),
            Input::Completed(results) => {
                self.workers[slot].completed = true;
                self.workers[slot].ended = true;
                if rank == 0 {
                    self.results = results;
                }
            }
            Input::Stopped(step) => {
                self.workers[slot].ended = true;
                // The others have nothing to write, and say so before it is written.
                if slot == 0 {
                    self.stopped_after = Some(step);
                }
                if self.cause.is_none() {
                    self.left(rank, now, actions);
                }
            }
            // The end of the process follows, or silence.
            Input::SessionClosed => {}
            Input::Exited(exit, tail) => self.exited(slot, exit, tail, now, actions),
        }
    }

    fn locate(&mut self, slot: usize, phase: Phase, done: u64) {
        self.workers[slot].position = Some((phase, done));
        self.trained |= phase == Phase::Train;
    }

    fn hello(&mut self, slot: usize, ring: String, actions: &mut Vec<Action>) {
        let (rank, world) = (slot as u32, self.workers.len() as u32);
        // One that comes back has its place.
        if self.workers[slot].ring.is_none() {
            self.workers[slot].ring = Some(ring);
            actions.push(Action::Send { slot: rank, order: Order::Assign { rank, world } });
        }
        if self.cause.is_some() {
            // Too late, or told while it could not hear.
            actions
                .push(Action::Send { slot: rank, order: Order::Stop { reason: "the job is ending".into() } });
        }
    }

    fn ready(&mut self, slot: usize, having: Having, now: Duration, actions: &mut Vec<Action>) {
        self.workers[slot].ready = Some(having);
        if self.state != JobState::Starting {
            return;
        }
        let all: Vec<Having> = self.workers.iter().filter_map(|w| w.ready.clone()).collect();
        let peers: Vec<String> = self.workers.iter().filter_map(|w| w.ring.clone()).collect();
        if all.len() < self.workers.len() || peers.len() < self.workers.len() {
            return;
        }
        if let Some(sentence) = disagreement(&all) {
            self.report(FailureReport::new(FailureCode::Disagreement, sentence), now, actions);
            return;
        }
        self.enter(JobState::Running, "all workers are ready", actions);
        for slot in 0..self.workers.len() as u32 {
            actions.push(Action::Send { slot, order: Order::Begin { peers: peers.clone() } });
        }
    }

    fn exited(
        &mut self,
        slot: usize,
        exit: Exit,
        tail: Vec<String>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let worker = &mut self.workers[slot];
        worker.gone = true;
        let ended = worker.ended;
        if let Some(own) = self.reports.iter_mut().map(|(_, r)| r).find(|r| r.rank == Some(slot as u32)) {
            if own.stderr_tail.is_empty() {
                own.stderr_tail = tail;
            }
        } else if self.cause.is_none() && !(ended && exit == Exit::Code(0)) {
            let report = self.workers[slot].located(blame::of_exit(slot as u32, exit, tail), self.place());
            let weight = blame::weight(&report, Some(exit));
            self.weigh(weight, report, now, actions);
        }
    }

    fn report(&mut self, report: FailureReport, now: Duration, actions: &mut Vec<Action>) {
        self.weigh(blame::weight(&report, None), report, now, actions);
    }

    /// Takes in a failure. A cause ends the job at once; anything less waits a while for its cause.
    fn weigh(&mut self, weight: Weight, mut report: FailureReport, now: Duration, actions: &mut Vec<Action>) {
        if self.cause.is_some() {
            if self.cause == Some(Cause::Cancel) && weight == Weight::Cause {
                self.failed_late.get_or_insert_with(|| report.to_string());
            }
            return;
        }
        if matches!(report.code, FailureCode::Collective | FailureCode::WorkerStalled)
            && let Some((_, sentence)) = late(&self.workers, &self.deadlines, now)
        {
            report.summary = format!("{}; {sentence}", report.summary);
        }
        self.reports.push((weight, report));
        let sure = weight == Weight::Cause;
        let wait = if sure { now } else { now + BLAME_WINDOW };
        self.blame_at = Some(self.blame_at.map_or(wait, |at| at.min(wait)));
        if sure {
            self.fail(now, actions);
        }
    }

    /// The place furthest into the job that a worker is known to be at.
    fn place(&self) -> (Phase, u64) {
        self.workers.iter().filter_map(|w| w.position).max().unwrap_or((Phase::Prepare, 0))
    }

    /// Ends the present life because of the reports, and the job unless it is to be started again.
    fn fail(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.cause.is_some() {
            return;
        }
        let Some(root) = blame::root(&self.reports) else { return };
        let reason = root.to_string();
        self.blame_at = None;
        match self.restarts.after(root, self.place()) {
            Ok(wait) => {
                self.cause = Some(Cause::Restart(wait));
                self.enter(JobState::Restarting, reason.clone(), actions);
            }
            Err(why) => {
                self.cause = Some(Cause::Failure);
                self.enter(JobState::Stopping, reason.clone(), actions);
                actions.extend(why.map(|text| Action::Record(EventBody::Note { rank: None, text })));
            }
        }
        self.stop_all(&reason, actions);
        // The survivors can take no step any more; rank 0 may just have time to end the writing of a checkpoint.
        for slot in self.present() {
            actions.push(Action::Kill { slot, hard: false });
        }
        self.kill_at = Some(now + self.deadlines.stop_grace.min(BLAME_WINDOW));
    }

    fn deadlines(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.blame_at.is_some_and(|at| at <= now) {
            self.fail(now, actions);
        }
        if self.cause.is_none()
            && let Some((slot, sentence)) = self.overdue(now)
        {
            let absent = self.attended && self.workers[slot].ring.is_none();
            let report = match absent {
                true => FailureReport::new(FailureCode::Launch, self.absence(now)),
                false => FailureReport::new(FailureCode::WorkerStalled, sentence).of_rank(slot as u32),
            };
            self.report(self.workers[slot].located(report, self.place()), now, actions);
        }
        self.name_late(now, actions);
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart(now, actions);
        }
        for (at, hard) in [(self.term_at, false), (self.kill_at, true)] {
            if at.is_some_and(|at| at <= now) {
                for slot in self.present() {
                    actions.push(Action::Kill { slot, hard });
                }
                *(if hard { &mut self.kill_at } else { &mut self.term_at }) = None;
            }
        }
    }

    /// Says, once, which rank the others wait for: long before it counts as lost.
    fn name_late(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let found = late(&self.workers, &self.deadlines, now).filter(|_| self.cause.is_none());
        let rank = found.as_ref().map(|(rank, _)| *rank);
        if let Some((rank, text)) = found
            && self.named_late != Some(rank)
        {
            actions.push(Action::Record(EventBody::Note { rank: None, text }));
        }
        self.named_late = rank;
    }

    fn overdue(&self, now: Duration) -> Option<(usize, String)> {
        self.workers.iter().enumerate().find_map(|(slot, worker)| {
            let (at, sentence) = worker.limit(self.started, &self.deadlines)?;
            (at <= now).then(|| (slot, format!("{sentence} ({} s)", (now - worker.heard).as_secs())))
        })
    }

    fn next_deadline(&self) -> Option<Duration> {
        let of_workers = self
            .workers
            .iter()
            .filter(|_| self.cause.is_none())
            .filter_map(|w| w.limit(self.started, &self.deadlines))
            .map(|(at, _)| at);
        let of_job = [self.blame_at, self.term_at, self.kill_at, self.restart_at].into_iter().flatten();
        of_workers.chain(of_job).min()
    }

    /// Begins the next life.
    fn restart(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.generation = self.generation.next();
        // Without a failure, a worker was asked to leave.
        let which = if self.reports.is_empty() { "once more".into() } else { self.restarts.ordinal() };
        self.workers.fill(Worker::default());
        self.reports.clear();
        self.cause = None;
        self.restart_at = None;
        self.stopped_after = None;
        self.results = None;
        let from = if self.trained { "from the newest checkpoint" } else { "from the start" };
        self.enter(JobState::Starting, format!("{which}, {from}"), actions);
        self.launch(now, actions);
    }

    /// The final state, or the wait for the next life, once every process is gone.
    fn conclude(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.state.is_final() || self.workers.iter().any(|w| !w.gone) {
            return;
        }
        if self.cause.is_none() && !self.reports.is_empty() {
            // Nobody is left who could tell more of the cause.
            self.fail(now, actions);
        }
        if let Some(Cause::Restart(wait)) = self.cause {
            if self.restart_at.is_none() {
                self.restarts.complete(blame::root(&self.reports));
                (self.restart_at, self.term_at, self.kill_at) = (Some(now + wait), None, None);
            }
            return;
        }
        let completed = self.reports.is_empty() && self.workers.iter().all(|w| w.completed);
        match (self.cause, self.results.take()) {
            // A cancel that came too late to stop anything takes no results away.
            (None | Some(Cause::Cancel), Some(results)) if completed => {
                actions.push(Action::Record(EventBody::Results { results }));
                self.enter(JobState::Succeeded, "all workers completed", actions);
            }
            (Some(Cause::Cancel), _) => {
                let reason = match self.stopped_after {
                    Some(step) if step > 0 => {
                        format!("stopped after step {step}, with a checkpoint; --resume goes on from there")
                    }
                    _ => match &self.failed_late {
                        Some(failure) => format!("all workers are gone; {failure}"),
                        None => "all workers are gone".into(),
                    },
                };
                self.enter(JobState::Cancelled, reason, actions);
            }
            _ => {
                let nothing = FailureReport::new(FailureCode::Internal, "the workers ended without results");
                let root = self.restarts.root_of_stuck().or(blame::root(&self.reports));
                let root = root.cloned().unwrap_or(nothing);
                let reason = root.to_string();
                actions.push(Action::Record(EventBody::Failure(root)));
                self.enter(JobState::Failed, reason, actions);
            }
        }
    }
}
