//! How lives end, and the job with the last of them.

use std::time::Duration;

use squad_proto::{EventBody, FailureCode, FailureReport, JobState};

use super::blame::{self, Weight};
use super::event::Action;
use super::late::late;
use super::machine::{Cause, Machine};
use super::memory::Ending;
use super::restart::Verdict;

impl Machine {
    pub(super) fn report(&mut self, report: FailureReport, now: Duration, actions: &mut Vec<Action>) {
        self.weigh(blame::weight(&report, None), report, now, actions);
    }

    /// Takes in a failure. A cause ends the job at once; anything less waits a while for its cause.
    pub(super) fn weigh(
        &mut self,
        weight: Weight,
        mut report: FailureReport,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if let Some(cause) = self.cause {
            if matches!(cause, Cause::Cancel | Cause::Suspend) && weight == Weight::Cause {
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
        let wait = if sure { now } else { now + self.deadlines.blame };
        self.blame_at = Some(self.blame_at.map_or(wait, |at| at.min(wait)));
        if sure {
            self.fail(now, actions);
        }
    }

    /// Ends the present life because of the reports, and the job unless it is to be started again.
    fn fail(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.cause.is_some() {
            return;
        }
        let Some(root) = blame::root(&self.reports) else { return };
        let reason = root.to_string();
        self.blame_at = None;
        let spare = self.world() > self.fewest;
        let slot = root.rank.and_then(|rank| self.workers.get(rank as usize)).map(|worker| worker.slot);
        let place = self.place();
        match self.memory.restarts.after(root, place, spare && slot.is_some()) {
            Verdict::Again(wait) => {
                self.next_life = self.memory.restarts.ordinal();
                self.cause = Some(Cause::Restart(wait));
                self.enter(JobState::Restarting, reason.clone(), actions);
            }
            Verdict::Smaller(wait) => {
                self.memory.dropped.extend(slot);
                let left = self.slots as usize - self.memory.dropped.len();
                let lost = slot.unwrap_or_default();
                self.next_life =
                    format!("slot {lost} is gone for good: with {left} of {} workers", self.slots);
                self.cause = Some(Cause::Restart(wait));
                self.enter(JobState::Restarting, reason.clone(), actions);
            }
            Verdict::Never(why) => {
                self.memory.ending = Some(Ending::Failed(root.clone()));
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
        self.kill_at = Some(now + self.deadlines.stop_grace.min(self.deadlines.blame));
    }

    /// Does what is due.
    pub(super) fn deadlines(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.blame_at.is_some_and(|at| at <= now) {
            self.fail(now, actions);
        }
        if self.cause.is_none()
            && let Some((rank, sentence)) = self.overdue(now)
        {
            let absent = self.attended && self.workers[rank].ring.is_none();
            let report = match absent {
                true => FailureReport::new(FailureCode::Launch, self.absence(now)),
                false => FailureReport::new(FailureCode::WorkerStalled, sentence).of_rank(rank as u32),
            };
            self.report(self.workers[rank].located(report, self.place()), now, actions);
        }
        self.name_late(now, actions);
        if self.restart_at.is_some_and(|at| at <= now) {
            let reason = format!("{}, {}", self.next_life, self.origin());
            self.begin_life(reason, now, actions);
        }
        if self.term_at.is_some_and(|at| at <= now) {
            self.term_at = None;
            actions.extend(self.present().map(|slot| Action::Kill { slot, hard: false }));
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_hard(now, actions);
        }
    }

    /// Kills what is left, again and again: a process that waits for a disk that does not answer cannot even be killed.
    fn kill_hard(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let left: Vec<u32> = self.present().collect();
        if self.killed && !left.is_empty() {
            let slots = left.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let text = format!(
                "the worker of slot {slots} does not end though it was killed: it may wait for a disk or a network \
                 file system that does not answer"
            );
            actions.push(Action::Record(EventBody::Note { rank: None, text }));
        }
        self.killed = true;
        actions.extend(left.into_iter().map(|slot| Action::Kill { slot, hard: true }));
        self.kill_at = Some(now + self.deadlines.stop_grace);
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
        self.workers.iter().enumerate().find_map(|(rank, worker)| {
            let (at, sentence, since) = worker.limit(self.started, &self.deadlines)?;
            (at <= now).then(|| (rank, format!("{sentence} ({} s)", (now - since).as_secs())))
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let of_workers = self
            .workers
            .iter()
            .filter(|_| self.cause.is_none())
            .filter_map(|w| w.limit(self.started, &self.deadlines))
            .map(|(at, ..)| at);
        let of_job = [self.blame_at, self.term_at, self.kill_at, self.restart_at].into_iter().flatten();
        of_workers.chain(of_job).min()
    }

    /// The final state, or the wait for the next life, once every process is gone.
    pub(super) fn conclude(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.state.is_final() || self.workers.iter().any(|w| !w.gone) {
            return;
        }
        if self.cause.is_none() && !self.reports.is_empty() {
            // Nobody is left who could say more.
            self.fail(now, actions);
        }
        if let Some(Cause::Restart(wait)) = self.cause {
            if self.restart_at.is_none() {
                self.memory.restarts.complete(blame::root(&self.reports));
                (self.restart_at, self.term_at, self.kill_at) = (Some(now + wait), None, None);
            }
            return;
        }
        let completed = self.reports.is_empty() && self.workers.iter().all(|w| w.completed);
        match (self.cause, self.results.take()) {
            // A stop that came too late to stop anything takes no results away.
            (None | Some(Cause::Cancel | Cause::Suspend), Some(results)) if completed => {
                actions.push(Action::Record(EventBody::Results { results }));
                self.enter(JobState::Succeeded, "all workers completed", actions);
            }
            (Some(Cause::Cancel), _) => {
                let reason = self.how_it_stopped("--resume goes on from there");
                self.enter(JobState::Cancelled, reason, actions);
            }
            (Some(Cause::Suspend), _) => {
                let reason = self.how_it_stopped("the job goes on from there when its turn comes");
                self.workers.clear();
                self.forget();
                self.enter(JobState::Queued, reason, actions);
            }
            _ => {
                let nothing = FailureReport::new(FailureCode::Internal, "the workers ended without results");
                let root = self.memory.restarts.root_of_stuck().or(blame::root(&self.reports));
                let root = root.cloned().unwrap_or(nothing);
                let reason = root.to_string();
                actions.push(Action::Record(EventBody::Failure(root)));
                self.enter(JobState::Failed, reason, actions);
            }
        }
    }

    /// What became of a gang that was stopped on purpose, for people.
    fn how_it_stopped(&self, then: &str) -> String {
        match (self.stopped_after, &self.failed_late) {
            (Some(step), _) if step > 0 => format!("stopped after step {step}, with a checkpoint; {then}"),
            (_, Some(failure)) => format!("all workers are gone; {failure}"),
            (_, None) => "all workers are gone".into(),
        }
    }
}
