//! What must hold, whatever goes wrong.

use std::time::Duration;

use squad_proto::{Deadlines, EventBody, JobState};

use super::plan::Plan;
use super::process::Process;
use crate::job::{Action, Event, Machine};

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The newest generation that was launched.
    launched: u32,
    /// Lives that were begun because one was lost.
    charged: u32,
    failures: u32,
    finals: u32,
    /// A cancel was heard: nothing may be launched any more.
    pub(super) cancelled: bool,
    /// The last state that was entered, by any coordinator.
    pub(super) entered: Option<JobState>,
    /// The reason of the last time that the job was restarting.
    restarting: String,
    /// The step of the newest checkpoint when the newest life began.
    pub(super) begun_at: u64,
}

macro_rules! hold {
    ($condition:expr, $($words:tt)+) => { if !$condition { return Err(format!($($words)+)); } };
}
pub(super) use hold;

impl Checks {
    /// After the machine took in an event.
    pub(super) fn step(
        &mut self,
        (before, event): (&Machine, &Event),
        (machine, actions): (&Machine, &[Action]),
        now: Duration,
    ) -> Result<(), String> {
        let stale = matches!(event, Event::Worker { generation, .. } if *generation != before.generation());
        hold!(
            !stale || actions.is_empty() && machine == before,
            "a stale message changed something: {event:?}"
        );
        let was_final = before.state().is_final();
        hold!(
            !was_final || actions.is_empty() && machine == before,
            "something came after the end: {event:?}"
        );
        hold!(machine.generation() >= before.generation(), "the generation went back");
        if !machine.state().is_final() && machine.state() != JobState::Queued {
            let waits = machine.next_deadline();
            hold!(waits.is_some(), "nothing is waited for in {}: {machine:#?}", machine.state());
            let longest = machine.deadlines.ready + Duration::from_secs(60);
            hold!(
                waits.is_some_and(|at| at <= now + longest),
                "it waits for too long in {}",
                machine.state()
            );
            let told = actions.iter().any(|a| matches!(a, Action::Wake(at) if Some(*at) == waits));
            hold!(
                actions.is_empty() && stale || told || actions.is_empty(),
                "the timer was not set: {actions:?}"
            );
        }
        Ok(())
    }

    /// Before an action is performed.
    pub(super) fn action(
        &mut self,
        action: &Action,
        (machine, plan): (&Machine, &Plan),
        processes: &[Process],
    ) -> Result<(), String> {
        match action {
            Action::Launch { slot, rank } => {
                let generation = machine.generation();
                hold!(!self.cancelled, "slot {slot} was launched after a cancel");
                hold!(generation.0 >= self.launched, "generation {generation} came again");
                self.launched = generation.0;
                let old = processes.iter().find(|p| p.lives() && p.generation != generation);
                hold!(old.is_none(), "generation {generation} begins while {old:?} lives");
                let twice = processes.iter().find(|p| p.generation == generation && p.slot == *slot);
                hold!(twice.is_none(), "{twice:?} was launched twice");
                hold!(machine.workers[*rank as usize].slot == *slot, "slot {slot} is not of rank {rank}");
                hold!(machine.world() >= plan.fewest, "fewer workers than min_workers");
            }
            Action::Record(EventBody::State { state, reason }) => self.entered(*state, reason, plan)?,
            Action::Record(EventBody::Failure(root)) => {
                self.failures += 1;
                let spent = !machine.memory.restarts.has_another();
                hold!(spent || !root.code.may_pass(), "it failed with restarts left: {root}");
                hold!(self.failures == 1, "a second root cause");
            }
            _ => {}
        }
        Ok(())
    }

    fn entered(&mut self, state: JobState, reason: &str, plan: &Plan) -> Result<(), String> {
        if state == JobState::Restarting {
            self.restarting = reason.to_owned();
        }
        // The end of a coordinator is nobody's failure.
        if state == JobState::Starting
            && self.entered == Some(JobState::Restarting)
            && !self.restarting.starts_with("SQ-010")
        {
            self.charged += 1;
            let allowed = plan.max_restarts + plan.slots - plan.fewest;
            hold!(self.charged <= allowed, "{} restarts, {allowed} allowed", self.charged);
        }
        if state.is_final() {
            self.finals += 1;
            hold!(self.finals == 1, "a second end");
            hold!(
                (self.failures == 1) == (state == JobState::Failed),
                "{state} with {} causes",
                self.failures
            );
        }
        self.entered = Some(state);
        Ok(())
    }

    /// A life begins with this checkpoint.
    pub(super) fn begins(&mut self, step: u64) -> Result<(), String> {
        hold!(step >= self.begun_at, "a life began at step {step}, an earlier one at {}", self.begun_at);
        self.begun_at = step;
        Ok(())
    }
}

/// How long a job may take to its end once nothing goes wrong any more.
pub(super) fn longest(plan: &Plan, deadlines: &Deadlines) -> Duration {
    let training = Duration::from_secs(3) * plan.steps as u32;
    let life = deadlines.hello
        + deadlines.ready
        + deadlines.progress
        + deadlines.collective
        + deadlines.kill_after()
        + Duration::from_secs(30)
        + training;
    life * (plan.max_restarts + plan.slots + 3)
}
