//! Ranks' clocks, compared.
//!
//! In a barrier nobody goes out before everybody has gone in. So rank r went out after rank 0 went in, and rank 0
//! after rank r: two bounds on what r's clock is ahead of rank 0's, whatever the network does. Several barriers
//! give several bounds, of which the tightest count. The middle is off by half of their distance at most.
//! This is done at the beginning and at the end of what is recorded; between them clocks are taken to drift evenly.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use squad_collective::Background;

use crate::error::TrainError;

/// Barriers for one comparison.
const BARRIERS: usize = 16;

/// When a rank went into a barrier and out of it, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) before: i64,
    pub(super) after: i64,
}

/// Meets the other ranks a few times. All ranks call this at once.
pub(super) fn read(collective: &Background, epoch: Instant) -> Result<Vec<Reading>, TrainError> {
    Ok(collective.run(move |ranks| {
        let now = || epoch.elapsed().as_nanos() as i64;
        (0..BARRIERS)
            .map(|_| {
                let before = now();
                ranks.barrier()?;
                Ok(Reading { before, after: now() })
            })
            .collect()
    })?)
}

/// What a rank's clock is ahead of rank 0's at one time, and by how much that may be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Offset {
    at: i64,
    nanos: f64,
    error: f64,
}

impl Offset {
    fn between(own: &[Reading], first: &[Reading]) -> Self {
        let both = || own.iter().zip(first);
        let lowest = both().map(|(own, first)| own.before - first.after).max().unwrap_or_default() as f64;
        let highest = both().map(|(own, first)| own.after - first.before).min().unwrap_or_default() as f64;
        Self {
            at: own.last().map_or(0, |reading| reading.after),
            nanos: f64::midpoint(lowest, highest),
            error: (highest - lowest).abs() / 2.0,
        }
    }
}

/// Turns times of one rank into those of rank 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Offset,
    end: Offset,
}

impl Clock {
    /// The clock of a rank with the readings `own`, at the beginning and at the end, beside rank 0's.
    pub(super) fn new(own: (&[Reading], &[Reading]), first: (&[Reading], &[Reading])) -> Self {
        Self { start: Offset::between(own.0, first.0), end: Offset::between(own.1, first.1) }
    }

    /// The time of rank 0's clock, in nanoseconds.
    pub(super) fn to_first(self, nanos: u64) -> f64 {
        let length = (self.end.at - self.start.at).max(1) as f64;
        let share = ((nanos as f64 - self.start.at as f64) / length).clamp(0.0, 1.0);
        nanos as f64 - (self.start.nanos + share * (self.end.nanos - self.start.nanos))
    }

    /// By how many nanoseconds it may be wrong where it was compared.
    pub(super) fn error(self) -> f64 {
        self.start.error.max(self.end.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Readings of a rank whose clock is `ahead`, with barriers that all have left at some time after the last has
    /// gone in.
    fn readings(barriers: &[(i64, i64, i64, i64)], ahead: i64) -> (Vec<Reading>, Vec<Reading>) {
        let mut start = 0;
        let (mut own, mut first) = (Vec::new(), Vec::new());
        for (in_own, in_first, out_own, out_first) in barriers {
            let all_in = start + in_own.max(in_first);
            first.push(Reading { before: start + in_first, after: all_in + out_first });
            own.push(Reading { before: start + in_own + ahead, after: all_in + out_own + ahead });
            start = all_in + out_own.max(out_first);
        }
        (own, first)
    }

    proptest! {
        #[test]
        fn the_offset_is_as_exact_as_it_says(
            barriers in prop::collection::vec((0..1000i64, 0..1000i64, 0..1000i64, 0..1000i64), 1..20),
            ahead in -1_000_000..1_000_000i64,
        ) {
            let (own, first) = readings(&barriers, ahead);
            let offset = Offset::between(&own, &first);
            prop_assert!((offset.nanos - ahead as f64).abs() <= offset.error + 1e-6, "{offset:?}");
            let clock = Clock::new((&own, &own), (&first, &first));
            let time = 5_000_000;
            prop_assert!((clock.to_first(time) - (time as f64 - ahead as f64)).abs() <= clock.error() + 1e-6);
        }
    }

    #[test]
    fn drift_is_spread_evenly() {
        let at = |time: i64, ahead: i64| {
            (
                vec![Reading { before: time + ahead, after: time + ahead }],
                vec![Reading { before: time, after: time }],
            )
        };
        let ((own, first), (late, first_late)) = (at(0, 0), at(1_000_000, 1000));
        let clock = Clock::new((&own, &late), (&first, &first_late));
        assert!((clock.to_first(500_500) - 500_000.0).abs() < 1.0);
        assert_eq!(clock.error(), 0.0);
    }
}
