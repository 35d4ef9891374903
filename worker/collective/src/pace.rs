//! A link that is slower than the real one, for measurements: what a rank sends and receives takes as long as its bytes
//! need at a given rate, in each direction, over all of its connections together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far a direction may be behind its rate and still catch up: sleeps are not exact. Fixed: it is no wait.
const SLACK: Duration = Duration::from_millis(2);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Out,
    In,
}

/// One rank's link.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: f64,
    /// When each direction is free again.
    free: [Mutex<Instant>; 2],
}

impl Pace {
    /// A link of so many gigabits a second, each way.
    pub(crate) fn new(gigabits: f64) -> Pace {
        let now = || Mutex::new(Instant::now());
        Pace { bytes_per_second: gigabits * 1e9 / 8.0, free: [now(), now()] }
    }

    /// How long nothing more may pass in this direction; zero if something may.
    pub(crate) fn held(&self, direction: Direction) -> Duration {
        let free = self.free[direction as usize].lock().unwrap_or_else(PoisonError::into_inner);
        free.saturating_duration_since(Instant::now())
    }

    /// So many bytes have passed.
    pub(crate) fn pass(&self, direction: Direction, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let mut free = self.free[direction as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = Instant::now().checked_sub(SLACK).unwrap_or(*free);
        *free = (*free).max(earliest) + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_held_for_as_long_as_its_bytes_take() {
        let pace = Pace::new(0.008);
        pace.pass(Direction::Out, 1_000_000);
        let held = pace.held(Direction::Out);
        assert!(held > Duration::from_millis(500) && held <= Duration::from_secs(1), "{held:?}");
        assert!(pace.held(Direction::In).is_zero());
        // Bytes of several connections add up.
        pace.pass(Direction::Out, 1_000_000);
        assert!(pace.held(Direction::Out) > Duration::from_millis(1500));
    }
}
