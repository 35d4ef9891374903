//! Whether a gang that lost a worker is started again, when, and with how many workers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use squad_proto::{FailureCode, FailureReport, Phase};

/// Lives in a row that may be lost to the same failure without getting further.
const FRUITLESS: u32 = 3;

/// Lives in a row that a slot may take with it, none getting further than the first of them, before it is gone for
/// good: by a worker that died or fell silent, and by one that could not be started.
const STRIKES: (u32, u32) = (3, 2);

/// The longest wait before a restart; the first is a second, each next one twice as long. Fixed: nobody is waited for.
const LONGEST: Duration = Duration::from_secs(30);

/// How far a life came: a phase, and its finished units.
type Place = (Phase, u64);

/// What follows the loss of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next life, after this wait.
    Again(Duration),
    /// The next life, after this wait, without the slot of the rank that is to blame.
    Smaller(Duration),
    /// No other life; what there is to say beyond the failure itself.
    Never(Option<String>),
}

/// The restarts of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restarts {
    allowed: u32,
    used: u32,
    /// Why a life was lost, and where.
    lost: Option<(FailureReport, Place)>,
    /// Lives in a row that were lost to the same, there or before.
    fruitless: u32,
    strikes: Option<Strikes>,
}

/// Lives in a row that one rank's process took with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Strikes {
    rank: u32,
    lives: u32,
    /// Where the first of them was lost.
    place: Place,
}

impl Restarts {
    /// None used yet.
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, used: 0, lost: None, fruitless: 0, strikes: None }
    }

    /// A life was lost to `root` at `place`: what comes next. `spare` says that the job may go on with one worker less.
    pub(crate) fn after(&mut self, root: &FailureReport, place: Place, spare: bool) -> Verdict {
        self.compare(root, place);
        let struck_out = self.strike(root, place);
        if spare && struck_out {
            // Another gang: what the one before could not do says nothing about it.
            (self.lost, self.fruitless, self.strikes) = (None, 0, None);
            return Verdict::Smaller(self.wait());
        }
        // Memory that was enough for steps runs out where something else took it, or at the longest batch: once more, to
        // see which. What never trained had too little from the start.
        let trained = place > (Phase::Train, 0) && self.fruitless < 2;
        let may_pass = root.code.may_pass()
            || (spare && root.code == FailureCode::Launch)
            || (trained && root.code == FailureCode::OutOfMemory);
        if !may_pass || self.allowed == 0 {
            return Verdict::Never(None);
        }
        if self.is_stuck() {
            let text =
                format!("the same happened {FRUITLESS} times, and no life got further: no more restarts");
            return Verdict::Never(Some(text));
        }
        if self.used == self.allowed {
            let text = format!("restarted {} times, which is all that fault.max_restarts allows", self.used);
            return Verdict::Never(Some(text));
        }
        let wait = self.wait();
        self.used += 1;
        Verdict::Again(wait)
    }

    /// Counts lives that were lost to the same without getting further.
    fn compare(&mut self, root: &FailureReport, place: Place) {
        let same = |(first, furthest): &(FailureReport, Place)| {
            // Words about a broken connection hold addresses and counts, those about a stall times and places, which
            // no life has twice; and any rank may be the first to say that a connection broke.
            let alike = match root.code {
                FailureCode::Collective | FailureCode::OutOfMemory => true,
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
    }

    /// Counts lives that the same rank's process took with it; whether its slot is gone for good.
    fn strike(&mut self, root: &FailureReport, place: Place) -> bool {
        let limit = match root.code {
            FailureCode::WorkerDied | FailureCode::WorkerStalled => STRIKES.0,
            FailureCode::Launch => STRIKES.1,
            _ => u32::MAX,
        };
        let Some(rank) = root.rank.filter(|_| limit < u32::MAX) else {
            self.strikes = None;
            return false;
        };
        match &mut self.strikes {
            Some(known) if known.rank == rank && place <= known.place => known.lives += 1,
            other => *other = Some(Strikes { rank, lives: 1, place }),
        }
        self.strikes.as_ref().is_some_and(|strikes| strikes.lives >= limit)
    }

    fn wait(&self) -> Duration {
        // Fixed, as the longest.
        Duration::from_secs(1).saturating_mul(1 << self.used.min(10)).min(LONGEST)
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

    /// Whether nothing but a failure that would come again is a reason to start the gang no more.
    #[cfg(test)]
    pub(crate) fn has_another(&self) -> bool {
        self.used < self.allowed && !self.is_stuck()
    }

    /// Which restart the next life is, for people.
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

    /// What comes after the loss of a rank at a step, where no worker can be spared.
    fn lose(restarts: &mut Restarts, rank: u32, step: u64) -> Verdict {
        let verdict = restarts.after(&lost(rank, step), (Phase::Train, step), false);
        restarts.complete(Some(&lost(rank, step)));
        verdict
    }

    fn never(words: &str) -> impl Fn(&Verdict) -> bool {
        move |verdict| matches!(verdict, Verdict::Never(Some(text)) if text.contains(words))
    }

    #[test]
    fn waits_double_up_to_the_budget() {
        let mut restarts = Restarts::new(7);
        let waits: Vec<Verdict> = (1..=7).map(|step| lose(&mut restarts, 0, step)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30].map(|s| Verdict::Again(Duration::from_secs(s))));
        let last = lose(&mut restarts, 0, 8);
        assert!(never("restarted 7 times")(&last), "{last:?}");
        assert_eq!(lose(&mut Restarts::new(0), 0, 1), Verdict::Never(None));
    }

    #[test]
    fn bad_input_is_not_tried_again() {
        for code in
            [FailureCode::Data, FailureCode::NotFinite, FailureCode::Checkpoint, FailureCode::Disagreement]
        {
            let report = FailureReport::new(code, "x");
            for spare in [false, true] {
                let verdict = Restarts::new(3).after(&report, (Phase::Train, 1), spare);
                assert_eq!(verdict, Verdict::Never(None), "{code}");
            }
        }
    }

    #[test]
    fn memory_that_was_enough_for_steps_is_tried_once_more() {
        let starved = |rank| FailureReport::new(FailureCode::OutOfMemory, "x").of_rank(rank);
        let first = Restarts::new(3).after(&starved(0), (Phase::Train, 0), false);
        assert_eq!(first, Verdict::Never(None), "it was too little from the start");
        let mut restarts = Restarts::new(3);
        let mut lose = |rank, step| restarts.after(&starved(rank), (Phase::Train, step), false);
        assert!(matches!(lose(0, 5), Verdict::Again(_)));
        assert!(matches!(lose(0, 9), Verdict::Again(_)), "that life got further");
        assert_eq!(lose(1, 9), Verdict::Never(None), "whichever rank the kernel chooses");
    }

    #[test]
    fn a_broken_ring_is_the_same_whoever_says_so_in_whatever_words() {
        let mut restarts = Restarts::new(100);
        let mut lose = |rank: u32| {
            let words = format!("the connection to 127.0.0.1:{} ended", 4000 + rank);
            let report = FailureReport::new(FailureCode::Collective, words).of_rank(rank);
            let verdict = restarts.after(&report, (Phase::Train, 5), true);
            restarts.complete(Some(&report));
            verdict
        };
        assert!(matches!((lose(0), lose(1)), (Verdict::Again(_), Verdict::Again(_))));
        let last = lose(2);
        assert!(never("no life got further")(&last), "{last:?}");
    }

    #[test]
    fn the_same_failure_without_progress_ends_with_its_first_cause() {
        let mut restarts = Restarts::new(100);
        // Further each time, or another rank: chance, not fate.
        for (rank, step) in [(0, 5), (0, 5), (0, 9), (0, 7), (1, 6), (0, 8), (0, 4)] {
            let verdict = lose(&mut restarts, rank, step);
            assert!(matches!(verdict, Verdict::Again(_)), "{verdict:?}");
        }
        let last = lose(&mut restarts, 0, 8);
        assert!(never("no life got further")(&last), "{last:?}");
        assert_eq!(restarts.root_of_stuck().unwrap().step, Some(8));
    }

    #[test]
    fn a_slot_that_takes_three_lives_is_spared_where_one_can_be() {
        let mut restarts = Restarts::new(5);
        let mut lose = |rank, code, step| {
            let report = FailureReport::new(code, format!("words {step}")).of_rank(rank);
            restarts.after(&report, (Phase::Train, step), true)
        };
        let again = |seconds| Verdict::Again(Duration::from_secs(seconds));
        use FailureCode::{Launch, WorkerDied, WorkerStalled};
        assert_eq!(lose(1, WorkerDied, 9), again(1));
        assert_eq!(lose(1, WorkerStalled, 7), again(2), "silent or dead is one to a slot");
        assert_eq!(lose(0, WorkerDied, 7), again(4), "another one begins anew");
        assert_eq!(lose(1, WorkerDied, 8), again(8));
        assert_eq!(lose(1, WorkerDied, 9), again(16), "the life got further: that counts from one");
        assert_eq!(
            lose(1, WorkerDied, 9),
            Verdict::Never(Some("restarted 5 times, which is all that fault.max_restarts allows".into()))
        );
        assert_eq!(lose(1, WorkerDied, 3), Verdict::Smaller(Duration::from_secs(30)), "costs no restart");
        assert_eq!(
            lose(1, Launch, 3),
            Verdict::Never(Some("restarted 5 times, which is all that fault.max_restarts allows".into()))
        );
        assert_eq!(lose(1, Launch, 3), Verdict::Smaller(Duration::from_secs(30)));
    }
}
