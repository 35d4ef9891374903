//! Which way of laying values down is the faster one, found out while the work is done.
//!
//! It depends on whether the cores share a cache, which virtual machines do not say truly, and which changes
//! when a rank moves. So now and then a few segments go one way and a few the other way, on all ranks alike, since
//! what one rank lays down another reads; in between each rank takes the way that was faster.

use std::time::Duration;

use super::lay::Way;

/// Segments from one trial to the next.
const PERIOD: u64 = 256;

/// Segments of a trial that go one way. The first of them find what the other way has left.
const TRIED: u64 = 4;

/// The segments of each way that count, the last ones.
const COUNTED: u64 = 2;

/// The times of the last trial, and how many segments there were.
#[derive(Clone, Debug)]
pub(crate) struct Tuner {
    segments: u64,
    cached: f64,
    streamed: f64,
}

impl Tuner {
    pub(crate) fn new() -> Tuner {
        Tuner { segments: 0, cached: 0.0, streamed: 0.0 }
    }

    /// How the next segment is laid down.
    pub(crate) fn way(&self) -> Way {
        match self.segments % PERIOD {
            at if at < TRIED => Way::Cached,
            at if at < 2 * TRIED => Way::Streamed,
            _ if self.cached < self.streamed => Way::Cached,
            _ => Way::Streamed,
        }
    }

    /// A segment of `bytes` bytes is done, in this time.
    pub(crate) fn done(&mut self, bytes: usize, took: Duration) {
        let at = self.segments % PERIOD;
        self.segments += 1;
        let of_way = match at {
            at if at < TRIED => &mut self.cached,
            at if at < 2 * TRIED => &mut self.streamed,
            _ => return,
        };
        let time = took.as_secs_f64() / bytes.max(1) as f64;
        match at % TRIED {
            at if at < TRIED - COUNTED => {}
            at if at == TRIED - COUNTED => *of_way = time,
            // Whatever comes between makes it longer, never shorter.
            _ => *of_way = of_way.min(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ways of so many segments, each of which takes as long as `time` says.
    fn ways(tuner: &mut Tuner, segments: u64, time: impl Fn(Way, u64) -> u64) -> Vec<Way> {
        let mut ways = Vec::new();
        for segment in 0..segments {
            let way = tuner.way();
            tuner.done(1000, Duration::from_micros(time(way, segment)));
            ways.push(way);
        }
        ways
    }

    #[test]
    fn the_faster_way_is_taken_until_the_next_trial() {
        for (cached, streamed, best) in [(1, 3, Way::Cached), (3, 1, Way::Streamed)] {
            let mut tuner = Tuner::new();
            let time = |way, _| if way == Way::Cached { cached } else { streamed };
            let taken = ways(&mut tuner, PERIOD, time);
            assert!(taken[..4].iter().all(|way| *way == Way::Cached));
            assert!(taken[4..8].iter().all(|way| *way == Way::Streamed));
            assert!(taken[8..].iter().all(|way| *way == best));
            // The machine has changed.
            let taken = ways(&mut tuner, PERIOD, |way, _| if way == Way::Cached { streamed } else { cached });
            assert!(taken[8..].iter().all(|way| *way != best));
        }
    }

    #[test]
    fn what_one_disturbed_segment_takes_and_what_the_other_way_left_do_not_count() {
        let mut tuner = Tuner::new();
        let taken = ways(&mut tuner, 9, |way, segment| match (way, segment) {
            (_, 0 | 1 | 3) => 100,
            (Way::Cached, _) => 1,
            (Way::Streamed, _) => 3,
        });
        assert_eq!(taken[8], Way::Cached);
    }
}
