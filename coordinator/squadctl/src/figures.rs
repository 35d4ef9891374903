//! Numbers as people read them.

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
}
