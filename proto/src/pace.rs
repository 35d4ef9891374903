//! How fast a phase goes, by the times that its reports carry.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::{Phase, Progress};

/// How fast a phase goes. A job that is joined in its middle, or replayed, has the right remaining time from its second
/// report on.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Of what: each is measured anew.
    phase: Option<(Phase, String)>,
    /// Time and finished units of the last reports.
    reports: VecDeque<(u64, u64)>,
    total: u64,
}

impl Pace {
    /// Reports that the speed is measured over: enough to be steady, few enough to follow a change.
    const WINDOW: usize = 30;

    /// Takes in a report of this moment.
    pub fn observe(&mut self, unix_ms: u64, progress: &Progress) {
        let same = |(phase, label): &(Phase, String)| *phase == progress.phase && *label == progress.label;
        // A gang that was started again goes back to a checkpoint.
        let back = self.reports.back().is_some_and(|(_, done)| *done > progress.done);
        if back || !self.phase.as_ref().is_some_and(same) {
            self.reports.clear();
            self.phase = Some((progress.phase, progress.label.clone()));
        }
        self.total = progress.total;
        self.reports.push_back((unix_ms, progress.done));
        if self.reports.len() > Self::WINDOW {
            self.reports.pop_front();
        }
    }

    /// Finished units, and the milliseconds that they took.
    fn made(&self) -> Option<(u64, u64)> {
        let ((start, first), (end, last)) = (*self.reports.front()?, *self.reports.back()?);
        let (made, spent) = (last.saturating_sub(first), end.saturating_sub(start));
        (made > 0 && spent > 0).then_some((made, spent))
    }

    /// Units a second, once two reports tell.
    pub fn per_second(&self) -> Option<f64> {
        self.made().map(|(made, spent)| 1000.0 * made as f64 / spent as f64)
    }

    /// The time until the phase ends at that speed; `None` also when nothing is left.
    pub fn rest(&self) -> Option<Duration> {
        let (made, spent) = self.made()?;
        let left = self.total.saturating_sub(self.reports.back()?.1);
        (left > 0).then(|| Duration::from_millis((spent as f64 * left as f64 / made as f64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(done: u64) -> Progress {
        Progress::new(Phase::Train, done, 100)
    }

    #[test]
    fn the_rest_takes_as_long_as_the_speed_says() {
        let mut pace = Pace::default();
        pace.observe(1_000, &train(40));
        assert_eq!((pace.per_second(), pace.rest()), (None, None));
        // Ten steps in two seconds, fifty are left.
        pace.observe(3_000, &train(50));
        assert_eq!((pace.per_second(), pace.rest()), (Some(5.0), Some(Duration::from_secs(10))));
        pace.observe(9_000, &train(100));
        assert_eq!((pace.per_second(), pace.rest()), (Some(7.5), None), "nothing is left");
    }

    #[test]
    fn what_begins_anew_is_measured_anew() {
        let mut pace = Pace::default();
        pace.observe(0, &train(90));
        pace.observe(1_000, &train(10));
        assert_eq!(pace.rest(), None);
        pace.observe(2_000, &train(20));
        assert_eq!(pace.rest(), Some(Duration::from_secs(8)));
        for label in ["step-10", "step-20"] {
            let mut progress = Progress::new(Phase::Evaluate, 30, 60);
            progress.label = label.into();
            pace.observe(3_000, &progress);
            assert_eq!(pace.per_second(), None, "another phase, or another checkpoint");
        }
    }
}
