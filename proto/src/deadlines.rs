//! Every wait of a job, derived from the one number that a user sets: `fault.patience_s`.

use std::time::Duration;

/// How long each party waits for another before it calls that one lost.
///
/// They are ordered, so that the nearest observer of a failure speaks first:
/// `beat < silence <= collective < stop_grace + collective`, and loading gets ten times the patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How often a worker's control thread says that it lives.
    pub beat: Duration,
    /// A worker unheard of for this long is lost.
    pub silence: Duration,
    /// From launch to Hello.
    pub hello: Duration,
    /// From launch to Hello where something else places the workers: a cluster's queue is slow, and a lost machine
    /// is replaced within this.
    pub gather: Duration,
    /// From Assign to Ready: loading weights and building features.
    pub ready: Duration,
    /// One wait inside a collective operation.
    pub collective: Duration,
    /// Whoever keeps another waiting for this long is named in the log.
    pub late: Duration,
    /// From Stop until the workers are killed: they end a step, and write a checkpoint.
    pub stop_grace: Duration,
}

impl Deadlines {
    /// Derives every deadline from `patience`, which is at least one second.
    pub fn from_patience(patience: Duration) -> Self {
        let patience = patience.max(Duration::from_secs(1));
        Self {
            beat: patience / 12,
            silence: patience / 2,
            hello: patience,
            gather: patience * 10,
            ready: patience * 10,
            collective: patience,
            late: patience / 4,
            stop_grace: patience / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nearest_observer_speaks_first(seconds in 0u64..100_000) {
            let d = Deadlines::from_patience(Duration::from_secs(seconds));
            prop_assert!(d.beat > Duration::ZERO);
            prop_assert!(d.beat * 4 < d.silence, "several beats may be lost before a worker is");
            prop_assert!(d.late < d.silence, "there is a warning before there is a failure");
            prop_assert!(d.silence < d.collective, "a dead worker is blamed before its victims time out");
            prop_assert!(d.hello <= d.ready);
            prop_assert!(d.hello < d.gather && d.silence < d.gather, "a lost worker's place can be taken again in time");
            prop_assert!(d.stop_grace > d.beat);
        }
    }
}
