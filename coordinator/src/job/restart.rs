//! Whether a gang that lost a worker is started again, and when.

use std::time::Duration;

use squad_proto::{FailureReport, Phase};

/// Lives in a row that may end without getting further than an earlier one.
const FRUITLESS: u32 = 3;

/// The longest wait before a restart; the first is a second, each next one twice as long.
const LONGEST: Duration = Duration::from_secs(30);

/// The restarts of one job.
#[derive(Clone, Debug)]
pub(crate) struct Restarts {
    allowed: u32,
    used: u32,
    /// The place furthest into the job that any life was lost at.
    furthest: Option<(Phase, u64)>,
    /// Lives that were lost there, or before.
    fruitless: u32,
    /// Why the first of them was lost.
    first: Option<FailureReport>,
}

impl Restarts {
    /// None used yet.
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, used: 0, furthest: None, fruitless: 0, first: None }
    }

    /// A life was lost to `root` at `place`: how long to wait before the next one, or, if there is to be none, what
    /// there is to say beyond `root`.
    pub(crate) fn after(
        &mut self,
        root: &FailureReport,
        place: (Phase, u64),
    ) -> Result<Duration, Option<String>> {
        if self.furthest.is_none_or(|furthest| place > furthest) {
            self.furthest = Some(place);
            self.fruitless = 0;
            self.first = None;
        }
        self.fruitless += 1;
        if !root.code.may_pass() || self.allowed == 0 {
            return Err(None);
        }
        if self.is_stuck() {
            return Err(Some(format!("{FRUITLESS} lives in a row got no further: no more restarts")));
        }
        if self.used == self.allowed {
            return Err(Some(format!(
                "restarted {} times, which is all that fault.max_restarts allows",
                self.used
            )));
        }
        let wait = Duration::from_secs(1).saturating_mul(1 << self.used.min(10)).min(LONGEST);
        self.used += 1;
        Ok(wait)
    }

    fn is_stuck(&self) -> bool {
        self.fruitless >= FRUITLESS
    }

    /// Keeps the cause of a life that is over, in case that the next ones get no further.
    pub(crate) fn remember(&mut self, root: Option<&FailureReport>) {
        if self.first.is_none() {
            self.first = root.cloned();
        }
    }

    /// The cause to tell in place of the last: that of the first of the lives that got no further.
    pub(crate) fn root_of_stuck(&self) -> Option<&FailureReport> {
        self.first.as_ref().filter(|_| self.is_stuck())
    }

    /// Which restart the present life is, for people.
    pub(crate) fn ordinal(&self) -> String {
        format!("restart {} of {}", self.used, self.allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_proto::FailureCode;

    fn lost(step: u64) -> FailureReport {
        FailureReport::new(FailureCode::WorkerDied, format!("lost at {step}"))
    }

    #[test]
    fn waits_double_up_to_the_budget() {
        let mut restarts = Restarts::new(7);
        let waits: Vec<u64> = (1..=7)
            .map(|step| restarts.after(&lost(step), (Phase::Train, step)).unwrap().as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        let last = restarts.after(&lost(8), (Phase::Train, 8)).unwrap_err();
        assert!(last.unwrap().contains("restarted 7 times"));
        assert_eq!(Restarts::new(0).after(&lost(1), (Phase::Train, 1)), Err(None));
    }

    #[test]
    fn bad_input_is_not_tried_again() {
        for code in
            [FailureCode::Data, FailureCode::NotFinite, FailureCode::Checkpoint, FailureCode::Disagreement]
        {
            let report = FailureReport::new(code, "x");
            assert_eq!(Restarts::new(3).after(&report, (Phase::Train, 1)), Err(None), "{code}");
        }
    }

    #[test]
    fn lives_that_get_no_further_end_with_the_first_cause() {
        let mut restarts = Restarts::new(100);
        let mut lose = |step| {
            let verdict = restarts.after(&lost(step), (Phase::Train, step));
            restarts.remember(Some(&lost(step)));
            verdict
        };
        for step in [5, 5, 9, 7] {
            lose(step).unwrap();
        }
        assert!(lose(9).unwrap_err().unwrap().contains("no further"));
        assert_eq!(restarts.root_of_stuck().unwrap().summary, "lost at 9");
    }
}
