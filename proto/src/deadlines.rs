//! Every wait of a job, derived from the one number that a user sets: `fault.patience_s`.

use std::time::Duration;

/// How long each party waits for another before it calls that one lost.
///
/// They are ordered, so that the nearest observer of a failure speaks first. [`Deadlines::table`] lists all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How often somebody who does not answer is tried again.
    pub retry: Duration,
    /// How long output is awaited once its process is gone, and the rest of a notice once it has begun: something may
    /// hold the pipe, or the network may be down.
    pub last_words: Duration,
    /// How often a worker's control thread says that it lives.
    pub beat: Duration,
    /// How long whoever has said all waits for the other side to have taken it in.
    pub farewell: Duration,
    /// One attempt to connect. A host that is down does not even refuse.
    pub connect: Duration,
    /// How long a rank that knocks at another's door may take to prove that it is one.
    pub handshake: Duration,
    /// How often a silent connection to the coordinator is tested, and how long the answer may take.
    pub keep_alive: Duration,
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
    /// How long a worker waits for another one of its machine that builds the same features, before it builds its own.
    pub features: Duration,
    /// From Assign to Ready: loading weights and building features.
    pub ready: Duration,
    /// How long a worker at work may finish nothing, no step and no question, though it says that it lives.
    pub progress: Duration,
}

impl Default for Deadlines {
    /// Those of a job that says nothing about its patience, and of what is no job.
    fn default() -> Self {
        Self::from_patience(Duration::from_secs_f64(crate::spec::Fault::default().patience_s))
    }
}

impl Deadlines {
    /// Derives every deadline from `patience`, which is at least one second.
    pub fn from_patience(patience: Duration) -> Self {
        let patience = patience.max(Duration::from_secs(1));
        Self {
            retry: (patience / 120).min(Duration::from_millis(500)),
            last_words: (patience / 8).min(Duration::from_millis(500)),
            beat: patience / 12,
            farewell: patience / 12,
            // Enough for one lost packet; whoever connects tries again.
            connect: (patience / 8).min(Duration::from_secs(2)),
            handshake: patience / 6,
            keep_alive: patience / 6,
            // A death is seen at once, however long steps take: more than two seconds would tell nobody anything.
            blame: (patience / 4).min(Duration::from_secs(2)),
            late: patience / 4,
            checkpoint: patience / 4,
            silence: patience / 2,
            stop_grace: patience / 2,
            hello: patience,
            gather: patience * 10,
            collective: patience,
            features: patience * 2,
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
            ("retry", self.retry, "somebody who does not answer is tried again"),
            ("last_words", self.last_words, "output of a process that is gone is awaited"),
            ("farewell", self.farewell, "who has said all waits until it was taken in"),
            ("connect", self.connect, "one attempt to connect"),
            ("handshake", self.handshake, "a rank proves to another that it is one"),
            ("keep_alive", self.keep_alive, "a silent connection is tested, and has as long to answer"),
            ("features", self.features, "a worker waits for features that another one builds"),
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

    #[test]
    fn the_documentation_has_every_wait_as_it_is() {
        let page = include_str!("../../docs/recovery.md");
        for (name, wait, _) in Deadlines::default().table() {
            let row =
                page.lines().find(|line| line.starts_with("| `") && line.contains(&format!("`{name}`")));
            let seconds = row.and_then(|row| row.split('|').nth(2)?.trim().parse::<f64>().ok());
            assert_eq!(seconds, Some(wait.as_secs_f64()), "docs/recovery.md, {name}");
        }
    }

    proptest! {
        #[test]
        fn nearest_observer_speaks_first(milliseconds in 0u64..100_000_000) {
            let d = Deadlines::from_patience(Duration::from_millis(milliseconds));
            prop_assert!(d.beat > Duration::ZERO);
            prop_assert!(d.beat * 4 < d.silence, "several beats may be lost before a worker is");
            prop_assert!(d.retry < d.connect, "an attempt is given up, not the trying");
            prop_assert!(d.connect + d.retry < d.hello, "a worker's first attempt is not its last");
            prop_assert!(d.last_words < d.blame, "a death is known, with its last lines, before its victims are blamed");
            prop_assert!(d.farewell < d.stop_grace, "who has said all is gone before it is killed");
            prop_assert!(
                d.keep_alive * 2 + d.connect + d.retry < d.silence,
                "a connection that broke is made again before its worker is lost"
            );
            prop_assert!(d.handshake < d.collective, "a stranger at the door does not cost a rank its place");
            prop_assert!(d.features < d.ready, "who waits for another's features can still build its own");
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
