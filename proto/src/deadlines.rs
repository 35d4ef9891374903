//! Every wait of a job, derived from the one number that a user sets: `fault.patience_s`.

use std::time::Duration;

/// How long each party waits for another before it calls that one lost.
///
/// They are ordered, so that the nearest observer of a failure speaks first. [`Deadlines::table`] lists all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How often a worker's control thread says that it lives.
    pub beat: Duration,
    /// How long what can only follow from a failure waits for the failure itself, and how long survivors have once it
    /// is known.
    pub blame: Duration,
    /// Whoever keeps another waiting for this long is named in the log.
    pub late: Duration,
    /// How long training waits for a slow disk before it leaves a checkpoint out.
    pub checkpoint: Duration,
    /// A worker unheard of for this long is lost.
    pub silence: Duration,
    /// From Stop until the workers are killed: they end a step, and write a checkpoint.
    pub stop_grace: Duration,
    /// From launch to Hello.
    pub hello: Duration,
    /// From launch to Hello where something else places the workers: a cluster's queue is slow, and a lost machine
    /// is replaced within this.
    pub gather: Duration,
    /// One wait inside a collective operation.
    pub collective: Duration,
    /// From Assign to Ready: loading weights and building features.
    pub ready: Duration,
    /// How long a worker at work may finish nothing, no step and no question, though it says that it lives.
    pub progress: Duration,
}

impl Deadlines {
    /// Derives every deadline from `patience`, which is at least one second.
    pub fn from_patience(patience: Duration) -> Self {
        let patience = patience.max(Duration::from_secs(1));
        Self {
            beat: patience / 12,
            // A death is seen at once, however long steps take: more than two seconds would tell nobody anything.
            blame: (patience / 4).min(Duration::from_secs(2)),
            late: patience / 4,
            checkpoint: patience / 4,
            silence: patience / 2,
            stop_grace: patience / 2,
            hello: patience,
            gather: patience * 10,
            collective: patience,
            ready: patience * 10,
            progress: patience * 10,
        }
    }

    /// From Stop until a worker that obeys neither it nor SIGTERM is killed.
    pub fn kill_after(&self) -> Duration {
        self.stop_grace + self.blame
    }

    /// Every deadline with its name and what it is for, the shortest first.
    pub fn table(&self) -> Vec<(&'static str, Duration, &'static str)> {
        let mut all = vec![
            ("beat", self.beat, "a worker says that it lives"),
            ("blame", self.blame, "a broken connection waits for its cause; survivors end"),
            ("late", self.late, "a rank that others wait for is named in the log"),
            ("checkpoint", self.checkpoint, "training waits for a slow disk"),
            ("silence", self.silence, "a worker unheard of is lost"),
            ("stop_grace", self.stop_grace, "workers that were asked to stop write a checkpoint and end"),
            ("kill_after", self.kill_after(), "workers that did not end are killed"),
            ("hello", self.hello, "a worker that was started reports"),
            ("gather", self.gather, "a worker that something else places reports"),
            ("collective", self.collective, "a rank waits for another inside an all-reduce"),
            ("ready", self.ready, "a worker loads weights and builds features"),
            ("progress", self.progress, "a worker that lives but finishes nothing is lost"),
        ];
        all.sort_by_key(|(_, wait, _)| *wait);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nearest_observer_speaks_first(milliseconds in 0u64..100_000_000) {
            let d = Deadlines::from_patience(Duration::from_millis(milliseconds));
            prop_assert!(d.beat > Duration::ZERO);
            prop_assert!(d.beat * 4 < d.silence, "several beats may be lost before a worker is");
            prop_assert!(d.late < d.silence, "there is a warning before there is a failure");
            prop_assert!(d.silence < d.collective, "a dead worker is blamed before its victims time out");
            prop_assert!(
                d.silence + d.blame < d.collective,
                "who fell silent is named before those who waited for it in a collective"
            );
            prop_assert!(d.checkpoint + d.beat < d.collective, "a slow disk is no lost rank to the others");
            prop_assert!(d.checkpoint < d.stop_grace, "a checkpoint under way is ended before the last one");
            prop_assert!(d.stop_grace > d.beat);
            prop_assert!(d.kill_after() < d.collective, "ranks that stop do not blame each other");
            prop_assert!(d.hello <= d.ready);
            prop_assert!(d.hello < d.gather && d.silence < d.gather, "a lost worker's place can be taken again in time");
            prop_assert!(d.collective * 2 < d.progress, "who waits for another rank says so first");
        }

        #[test]
        fn the_table_has_every_deadline_in_order(milliseconds in 0u64..100_000_000) {
            let d = Deadlines::from_patience(Duration::from_millis(milliseconds));
            let table = d.table();
            // The fields, and `kill_after`.
            let fields = format!("{d:?}").matches(": ").count();
            prop_assert_eq!(table.len(), fields + 1);
            prop_assert!(table.is_sorted_by_key(|(_, wait, _)| *wait));
        }
    }
}
