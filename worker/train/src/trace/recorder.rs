//! Events in memory, a bounded number of them.

use std::collections::VecDeque;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Activity;
use super::clock::Reading;

/// Events of optimizer steps that a rank keeps: the last ones, in whole steps. A step of a base model has about
/// 60 for each micro-batch.
pub const MOST_OF_STEPS: usize = 50_000;

/// Events outside of steps that a rank keeps: the first ones.
pub const MOST_OTHERS: usize = 10_000;

/// Which of a rank's threads something happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Track {
    /// The one that computes.
    Compute,
    /// The collective's.
    Reductions,
    /// The one that makes batches.
    Batches,
}

/// Something that took time, in nanoseconds of its rank's clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) activity: Activity,
    pub(super) step: u64,
    pub(super) track: Track,
    pub(super) begun: u64,
    pub(super) ended: u64,
}

/// Keeps events.
pub(super) struct Recorder {
    epoch: Instant,
    readings: Vec<Reading>,
    of_steps: VecDeque<Event>,
    others: Vec<Event>,
    /// The last step of which events were forgotten.
    forgotten: u64,
}

impl Recorder {
    /// A recorder whose clock starts at `epoch`, with the readings of it that were compared then.
    pub(super) fn new(epoch: Instant, readings: Vec<Reading>) -> Self {
        Self { epoch, readings, of_steps: VecDeque::new(), others: Vec::new(), forgotten: 0 }
    }

    pub(super) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(super) fn readings(&self) -> &[Reading] {
        &self.readings
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        let first = self.first_step();
        self.of_steps.iter().filter(move |event| event.step >= first).chain(&self.others)
    }

    pub(super) fn first_step(&self) -> u64 {
        self.forgotten + 1
    }

    pub(super) fn push(
        &mut self,
        (activity, step): (Activity, u64),
        track: Track,
        (begun, ended): (Instant, Instant),
    ) {
        let nanos = |at: Instant| at.saturating_duration_since(self.epoch).as_nanos() as u64;
        let event = Event { activity, step, track, begun: nanos(begun), ended: nanos(ended) };
        if matches!(activity, Activity::Score | Activity::Meet | Activity::Finish) {
            if self.others.len() < MOST_OTHERS {
                self.others.push(event);
            }
            return;
        }
        if self.of_steps.len() == MOST_OF_STEPS
            && let Some(oldest) = self.of_steps.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest.step);
        }
        self.of_steps.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_steps_are_kept() {
        let now = Instant::now();
        let mut recorder = Recorder::new(now, Vec::new());
        let per_step = 7;
        let steps = (MOST_OF_STEPS / per_step + 10) as u64;
        for step in 1..=steps {
            (0..per_step)
                .for_each(|_| recorder.push((Activity::Optimizer, step), Track::Compute, (now, now)));
        }
        for _ in 0..MOST_OTHERS + 5 {
            recorder.push((Activity::Score, steps), Track::Compute, (now, now));
        }
        let first = recorder.first_step();
        assert!(first > 1);
        let kept =
            |step| recorder.events().filter(|e| e.step == step && e.activity == Activity::Optimizer).count();
        assert_eq!((kept(first - 1), kept(first), kept(steps)), (0, per_step, per_step));
        assert!(recorder.events().count() <= MOST_OF_STEPS + MOST_OTHERS);
    }
}
