//! What the workers do.

use std::time::Duration;

use squad_proto::{EventBody, FailureCode, FailureReport, JobState, Phase};

use super::blame;
use super::event::{Action, Exit, Input, Order};
use super::late::Told;
use super::machine::Machine;
use super::rendezvous::{Having, disagreement, origin};

impl Machine {
    /// Something about the worker of this rank.
    pub(super) fn worker(&mut self, rank: usize, input: Input, now: Duration, actions: &mut Vec<Action>) {
        if self.workers[rank].gone {
            return;
        }
        if !matches!(input, Input::Exited(..) | Input::LaunchFailed(_) | Input::SessionClosed) {
            self.workers[rank].heard = now;
        }
        match input {
            Input::LaunchFailed(message) => {
                self.workers[rank].gone = true;
                let report = FailureReport::new(FailureCode::Launch, message).of_rank(rank as u32);
                self.report(report, now, actions);
            }
            Input::Hello { ring } => self.hello(rank, ring, actions),
            Input::Ready(having) => self.ready(rank, having, now, actions),
            Input::Beat { phase, done } => self.locate(rank, (phase, done), now),
            Input::Doing(doing) => self.workers[rank].doing = Some(Told::new(doing, now)),
            Input::Progress(progress) => {
                self.locate(rank, (progress.phase, progress.done), now);
                // Rank 0 speaks for all.
                if rank == 0 {
                    actions.push(Action::Record(EventBody::Progress(progress)));
                }
            }
            Input::Note(text) => {
                if rank == 0 {
                    actions.push(Action::Record(EventBody::Note { rank: Some(0), text }));
                }
            }
            Input::Delivers => self.workers[rank].moved = self.workers[rank].moved.map(|_| now),
            Input::OwnNote(text) => {
                actions.push(Action::Record(EventBody::Note { rank: Some(rank as u32), text }));
            }
            Input::Failure(report) => self.report(report.of_rank(rank as u32), now, actions),
            Input::Completed(results) => {
                self.workers[rank].completed = true;
                self.workers[rank].ended = true;
                if rank == 0 {
                    self.results = results;
                }
            }
            Input::Stopped(step) => self.stopped(rank, step, now, actions),
            // The end of the process follows, or silence.
            Input::SessionClosed => {}
            Input::Exited(exit, tail) => self.exited(rank, exit, tail, now, actions),
        }
    }

    fn locate(&mut self, rank: usize, position: (Phase, u64), now: Duration) {
        let worker = &mut self.workers[rank];
        if worker.position.replace(position) != Some(position) {
            worker.moved = worker.moved.map(|_| now);
        }
        self.memory.trained |= position.0 == Phase::Train;
    }

    fn hello(&mut self, rank: usize, ring: String, actions: &mut Vec<Action>) {
        let (slot, world) = (self.workers[rank].slot, self.world());
        // One that comes back has its place.
        if self.workers[rank].ring.is_none() {
            self.workers[rank].ring = Some(ring);
            actions.push(Action::Send { slot, order: Order::Assign { rank: rank as u32, world } });
        }
        if self.cause.is_some() {
            // Too late, or told while it could not hear.
            actions.push(Action::Send { slot, order: Order::Stop { reason: "the job is ending".into() } });
        }
    }

    fn ready(&mut self, rank: usize, having: Having, now: Duration, actions: &mut Vec<Action>) {
        self.workers[rank].ready = Some(having);
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
        let origin = origin(&all);
        self.enter(JobState::Running, "all workers are ready", actions);
        if let Some(text) = origin.as_ref().and_then(|origin| origin.news()) {
            actions.push(Action::Record(EventBody::Note { rank: None, text }));
        }
        for worker in &mut self.workers {
            worker.moved = Some(now);
            let order = Order::Begin { peers: peers.clone(), origin: origin.clone() };
            actions.push(Action::Send { slot: worker.slot, order });
        }
    }

    fn stopped(&mut self, rank: usize, step: u64, now: Duration, actions: &mut Vec<Action>) {
        self.workers[rank].ended = true;
        // The others have nothing to write, and say so before it is written.
        if rank == 0 {
            self.stopped_after = Some(step);
        }
        if self.cause.is_none() {
            self.left(rank as u32, now, actions);
        }
    }

    fn exited(
        &mut self,
        rank: usize,
        exit: Exit,
        tail: Vec<String>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let worker = &mut self.workers[rank];
        worker.gone = true;
        let ended = worker.ended;
        if let Some(own) = self.reports.iter_mut().map(|(_, r)| r).find(|r| r.rank == Some(rank as u32)) {
            if own.stderr_tail.is_empty() {
                own.stderr_tail = tail;
            }
        } else if self.cause.is_none() && !(ended && exit == Exit::Code(0)) {
            let report = self.workers[rank].located(blame::of_exit(rank as u32, exit, tail), self.place());
            let weight = blame::weight(&report, Some(exit));
            self.weigh(weight, report, now, actions);
        }
    }

    /// The place furthest into the job that a worker is known to be at.
    pub(super) fn place(&self) -> (Phase, u64) {
        self.workers.iter().filter_map(|w| w.position).max().unwrap_or((Phase::Prepare, 0))
    }
}
