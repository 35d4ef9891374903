//! Whether a gang that lost a worker is started again, and when.

use std::time::Duration;

use squad_proto::{FailureCode, FailureReport, Phase};

/// Lives in a row that may be lost to the same failure without getting further.
const FRUITLESS: u32 = 3;

/// The longest wait before a restart; the first is a second, each next one twice as long.
const LONGEST: Duration = Duration::from_secs(30);

/// The restarts of one job.
#[derive(Clone, Debug)]
pub(crate) struct Restarts {
    allowed: u32,
    used: u32,
    /// Why a life was lost, and where.
    lost: Option<(FailureReport, (Phase, u64))>,
    /// Lives in a row that were lost to the same, there or before.
    fruitless: u32,
}

impl Restarts {
    /// None used yet.
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, used: 0, lost: None, fruitless: 0 }
    }

    /// A life was lost to `root` at `place`: how long to wait before the next one, or, if there is to be none, what
    /// there is to say beyond `root`.
    pub(crate) fn after(
        &mut self,
        root: &FailureReport,
        place: (Phase, u64),
    ) -> Result<Duration, Option<String>> {
        let same = |(first, furthest): &(FailureReport, (Phase, u64))| {
            // Words about a broken connection hold addresses and counts, those about a stall times and places, which
            // no life has twice; and any rank may be the first to say that a connection broke.
            let alike = match root.code {
                FailureCode::Collective => true,
                FailureCode::WorkerStalled => first.rank == root.rank,
                _ => (first.rank, &first.summary) == (root.rank, &root.summary),
            };
            first.code == root.code && alike && place <= *furthest
        };
        if self.lost.as_ref().is_some_and(same) {
            self.fruitless += 1;
        } else {
            self.lost = Some((root.clone(), place));
            self.fruitless = 1;
        }
        if !root.code.may_pass() || self.allowed == 0 {
            return Err(None);
        }
        if self.is_stuck() {
            return Err(Some(format!(
                "the same happened {FRUITLESS} times, and no life got further: no more restarts"
            )));
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

    /// Takes the report again once the life is over: the last words of a process come with its end.
    pub(crate) fn complete(&mut self, root: Option<&FailureReport>) {
        if let (1, Some((first, _)), Some(root)) = (self.fruitless, &mut self.lost, root) {
            first.clone_from(root);
        }
    }

    /// The cause to tell in place of the last: that of the first of the lives that got no further.
    pub(crate) fn root_of_stuck(&self) -> Option<&FailureReport> {
        self.lost.as_ref().map(|(first, _)| first).filter(|_| self.is_stuck())
    }

    /// Which restart the present life is, for people.
    pub(crate) fn ordinal(&self) -> String {
        format!("restart {} of {}", self.used, self.allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(rank: u32, step: u64) -> FailureReport {
        let mut report = FailureReport::new(FailureCode::WorkerDied, "killed").of_rank(rank);
        report.step = Some(step);
        report
    }

    #[test]
    fn waits_double_up_to_the_budget() {
        let mut restarts = Restarts::new(7);
        let waits: Vec<u64> = (1..=7)
            .map(|step| restarts.after(&lost(0, step), (Phase::Train, step)).unwrap().as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        let last = restarts.after(&lost(0, 8), (Phase::Train, 8)).unwrap_err();
        assert!(last.unwrap().contains("restarted 7 times"));
        assert_eq!(Restarts::new(0).after(&lost(0, 1), (Phase::Train, 1)), Err(None));
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
    fn a_broken_ring_is_the_same_whoever_says_so_in_whatever_words() {
        let mut restarts = Restarts::new(100);
        let mut lose = |rank: u32| {
            let words = format!("the connection to 127.0.0.1:{} ended", 4000 + rank);
            let report = FailureReport::new(FailureCode::Collective, words).of_rank(rank);
            let verdict = restarts.after(&report, (Phase::Train, 5));
            restarts.complete(Some(&report));
            verdict
        };
        assert!(lose(0).is_ok() && lose(1).is_ok());
        assert!(lose(2).unwrap_err().unwrap().contains("no life got further"));
    }

    #[test]
    fn the_same_failure_without_progress_ends_with_its_first_cause() {
        let mut restarts = Restarts::new(100);
        let mut lose = |rank, step| {
            let verdict = restarts.after(&lost(rank, step), (Phase::Train, step));
            restarts.complete(Some(&lost(rank, step)));
            verdict
        };
        // Further each time, or another rank: chance, not fate.
        for (rank, step) in [(0, 5), (0, 5), (0, 9), (0, 7), (1, 6), (0, 8), (0, 4)] {
            lose(rank, step).unwrap();
        }
        assert!(lose(0, 8).unwrap_err().unwrap().contains("no life got further"));
        assert_eq!(restarts.root_of_stuck().unwrap().step, Some(8));
    }
}
