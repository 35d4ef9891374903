//! Numbers as people read them.

use std::collections::VecDeque;
use std::time::Duration;

use squad_proto::Progress;

/// A span of time, such as `2 min 31 s`.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Milliseconds between two moments of the system's clock, which may have been set back.
pub(crate) fn between(from_unix_ms: u64, to_unix_ms: u64) -> Duration {
    Duration::from_millis(to_unix_ms.saturating_sub(from_unix_ms))
}

/// A moment in the local time zone.
pub(crate) fn moment(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}

/// The figures of a progress report: `loss 1.2345  lr 2.00e-5  31.2 examples/s`.
pub(crate) fn of(progress: &Progress) -> String {
    let parts = [
        progress.loss.map(|v| format!("loss {v:.4}")),
        progress.learning_rate.map(|v| format!("lr {v:.2e}")),
        progress.examples_per_second.map(|v| format!("{v:.1} examples/s")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

/// How fast a phase goes, by the times that its reports carry: a job joined in its middle, or replayed, has
/// the right remaining time from its second report on.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Time and finished units of the last reports.
    reports: VecDeque<(u64, u64)>,
}

impl Pace {
    /// Reports that the speed is measured over: enough to be steady, few enough to follow a change.
    const WINDOW: usize = 30;

    /// Takes a report in; gives the time that is left, once two reports tell a speed.
    pub(crate) fn observe(&mut self, unix_ms: u64, progress: &Progress) -> Option<Duration> {
        if self.reports.back().is_some_and(|(_, done)| *done > progress.done) {
            // The phase began anew.
            self.reports.clear();
        }
        self.reports.push_back((unix_ms, progress.done));
        if self.reports.len() > Self::WINDOW {
            self.reports.pop_front();
        }
        let (start, first) = *self.reports.front()?;
        let (spent, made) = (unix_ms.saturating_sub(start), progress.done.saturating_sub(first));
        let left = progress.total.saturating_sub(progress.done);
        (spent > 0 && made > 0 && left > 0)
            .then(|| Duration::from_millis((spent as f64 * left as f64 / made as f64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_proto::Phase;

    #[test]
    fn durations_have_two_units_at_most() {
        let shown: Vec<String> = [3, 2500, 42_000, 151_000, 7_380_000]
            .into_iter()
            .map(|ms| duration(Duration::from_millis(ms)))
            .collect();
        assert_eq!(shown, ["3 ms", "2.5 s", "42 s", "2 min 31 s", "2 h 3 min"]);
    }

    #[test]
    fn progress_shows_what_it_has() {
        let mut progress = Progress::new(Phase::Train, 1, 2);
        assert_eq!(of(&progress), "");
        (progress.loss, progress.learning_rate) = (Some(1.23456), Some(2e-5));
        assert_eq!(of(&progress), "loss 1.2346  lr 2.00e-5");
    }

    #[test]
    fn the_rest_takes_as_long_as_the_speed_says() {
        let mut pace = Pace::default();
        let at = |done| Progress::new(Phase::Train, done, 100);
        assert_eq!(pace.observe(1_000, &at(40)), None);
        // Ten steps in two seconds, fifty are left.
        assert_eq!(pace.observe(3_000, &at(50)), Some(Duration::from_secs(10)));
        assert_eq!(pace.observe(9_000, &at(100)), None, "nothing is left");
    }

    #[test]
    fn a_phase_that_begins_anew_is_measured_anew() {
        let mut pace = Pace::default();
        let at = |done| Progress::new(Phase::Train, done, 100);
        pace.observe(0, &at(90));
        assert_eq!(pace.observe(1_000, &at(10)), None);
        assert_eq!(pace.observe(2_000, &at(20)), Some(Duration::from_secs(8)));
    }
}
