//! Which rank the others wait for, and what it is doing.
//!
//! Ranks meet in every all-reduce. When one is slow or stands still, all others say that they wait; what tells it
//! from them is that it does not, or that it says nothing any more.

use std::time::Duration;

use squad_proto::Deadlines;

use super::event::Doing;
use super::worker::Worker;

/// What a worker said last that it does, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    what: String,
    since: Duration,
    waits: bool,
}

impl Told {
    /// What was said at time `now`.
    pub(crate) fn new(doing: Doing, now: Duration) -> Self {
        Self { what: doing.what, since: now.saturating_sub(doing.lasts), waits: doing.waits }
    }

    /// What it was, for people.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }
}

/// The worker that others have waited for longer than a part of the patience, and the sentence about it.
pub(crate) fn late(workers: &[Worker], deadlines: &Deadlines, now: Duration) -> Option<(usize, String)> {
    let present = || workers.iter().enumerate().filter(|(_, worker)| !worker.gone && !worker.ended);
    let silent = |worker: &Worker| now.saturating_sub(worker.heard) > deadlines.beat * 3;
    let told = |worker: &Worker, waits: bool| -> Option<Duration> {
        worker.doing.as_ref().filter(|told| told.waits == waits).map(|told| now.saturating_sub(told.since))
    };
    let waiting = present()
        .filter(|(_, worker)| !silent(worker))
        .filter_map(|(rank, worker)| Some((told(worker, true)?, rank)))
        .max()
        .filter(|(waited, _)| *waited >= deadlines.late)?;
    let quiet = present()
        .filter(|(_, worker)| silent(worker))
        .max_by_key(|(_, worker)| now.saturating_sub(worker.heard))
        .map(|(rank, worker)| {
            let last = worker.doing.as_ref().map_or("loading", Told::what);
            (rank, format!("not heard of for {} s, last {last}", (now - worker.heard).as_secs()))
        });
    let busy = || {
        let (lasts, rank, what) = present()
            .filter_map(|(rank, worker)| Some((told(worker, false)?, rank, worker.doing.as_ref()?.what())))
            .max()?;
        Some((rank, format!("{what} for {} s", lasts.as_secs())))
    };
    let (rank, how) = quiet.or_else(busy)?;
    let (waited, waiter) = waiting;
    Some((rank, format!("rank {rank} is late: {how}; rank {waiter} has waited {} s", waited.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines() -> Deadlines {
        Deadlines::from_patience(Duration::from_secs(60))
    }

    /// A worker heard of at `heard` that then did `what`, since `since`.
    fn worker(what: &str, since: u64, heard: u64) -> Worker {
        let (since, heard) = (Duration::from_secs(since), Duration::from_secs(heard));
        let waits = what.starts_with("waiting");
        Worker { doing: Some(Told { what: what.into(), since, waits }), heard, ..Worker::default() }
    }

    fn at(seconds: u64, workers: &[Worker]) -> Option<String> {
        late(workers, &deadlines(), Duration::from_secs(seconds)).map(|(_, sentence)| sentence)
    }

    #[test]
    fn the_rank_that_does_not_wait_is_late() {
        let workers = [
            worker("waiting for the all-reduce of stage 5 of step 17", 70, 100),
            worker("in backward of stage 3 of step 17", 69, 99),
            worker("waiting for the all-reduce of stage 5 of step 17", 71, 100),
        ];
        let sentence = at(100, &workers).unwrap();
        let due = "rank 1 is late: in backward of stage 3 of step 17 for 31 s; rank 0 has waited 30 s";
        assert_eq!(sentence, due);
        assert_eq!(at(84, &workers), None, "nobody has waited long");
    }

    #[test]
    fn the_rank_that_is_silent_is_late_even_if_it_waited_last() {
        let wait = "waiting for the all-reduce of stage 5 of step 17";
        let workers = [worker(wait, 60, 98), worker(wait, 61, 70)];
        let sentence = at(100, &workers).unwrap();
        assert!(
            sentence.starts_with("rank 1 is late: not heard of for 30 s, last waiting for the"),
            "{sentence}"
        );
    }

    #[test]
    fn nobody_is_late_when_all_wait_or_the_one_is_gone() {
        let wait = || worker("waiting for the other ranks", 60, 98);
        assert_eq!(at(100, &[wait(), wait()]), None);
        let gone = Worker { gone: true, ..worker("in the optimizer of step 3", 10, 12) };
        assert_eq!(at(100, &[wait(), gone]), None);
    }
}
