//! Occasional lines, for logs of other programs and for pipes.

use squad_proto::{Event, EventBody, Pace, Phase, Progress};

use super::View;
use crate::figures;

/// Least time between two lines of one phase, by the clock of the events: a replayed job is as brief as one
/// that was followed.
const EVERY_MS: u64 = 10_000;

/// A line now and then.
pub(super) struct Lines<W> {
    write: W,
    /// What the last line of progress was about, and when it was.
    last: Option<(Phase, String, u64)>,
    pace: Pace,
}

impl<W: FnMut(&str) + Send> Lines<W> {
    pub(super) fn new(write: W) -> Self {
        Self { write, last: None, pace: Pace::default() }
    }

    fn progress(&mut self, unix_ms: u64, progress: &Progress) {
        let same = self
            .last
            .as_ref()
            .filter(|(phase, label, _)| (*phase, label) == (progress.phase, &progress.label));
        self.pace.observe(unix_ms, progress);
        let rest = self.pace.rest();
        let due = same.is_none_or(|(_, _, at)| unix_ms.saturating_sub(*at) >= EVERY_MS);
        if !due && progress.done < progress.total {
            return;
        }
        self.last = Some((progress.phase, progress.label.clone(), unix_ms));
        let label = if progress.label.is_empty() { String::new() } else { format!(" {}", progress.label) };
        let mut line = format!("{}{label} {}/{}", progress.phase, progress.done, progress.total);
        let eta = rest.map(|rest| format!("ETA {}", figures::duration(rest)));
        for part in [Some(figures::of(progress)).filter(|text| !text.is_empty()), eta].into_iter().flatten() {
            line.push_str("  ");
            line.push_str(&part);
        }
        (self.write)(&line);
    }
}

impl<W: FnMut(&str) + Send> View for Lines<W> {
    fn show(&mut self, event: &Event) {
        match &event.body {
            EventBody::Progress(progress) => self.progress(event.unix_ms, progress),
            _ => {
                if let Some(line) = super::line(event) {
                    (self.write)(&line);
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        (self.write)(text);
    }

    fn close(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_proto::{FailureCode, FailureReport, JobState};

    fn shown(bodies: impl IntoIterator<Item = (u64, EventBody)>) -> Vec<String> {
        let mut out = Vec::new();
        let mut view = Lines::new(|line: &str| out.push(line.to_owned()));
        for (sequence, (unix_ms, body)) in (1..).zip(bodies) {
            view.show(&Event { sequence, unix_ms, body });
        }
        drop(view);
        out
    }

    fn train(done: u64) -> EventBody {
        let mut progress = Progress::new(Phase::Train, done, 100);
        progress.loss = Some(2.0);
        EventBody::Progress(progress)
    }

    #[test]
    fn progress_comes_now_and_then_first_and_last() {
        let lines = shown([(0, train(1)), (2_000, train(21)), (10_000, train(51)), (11_000, train(100))]);
        assert_eq!(
            lines,
            [
                "train 1/100  loss 2.0000",
                "train 51/100  loss 2.0000  ETA 9.8 s",
                "train 100/100  loss 2.0000"
            ]
        );
    }

    #[test]
    fn what_the_report_says_is_not_said_before() {
        let lines = shown([
            (0, EventBody::State { state: JobState::Starting, reason: "launching 2 workers".into() }),
            (1, EventBody::Note { rank: Some(1), text: "hello".into() }),
            (2, EventBody::Failure(FailureReport::new(FailureCode::WorkerDied, "gone"))),
            (3, EventBody::State { state: JobState::Failed, reason: "gone".into() }),
        ]);
        assert_eq!(lines, ["starting: launching 2 workers", "rank 1: hello"]);
    }

    #[test]
    fn each_checkpoint_of_an_evaluation_has_its_own_lines() {
        let at = |label: &str| {
            let mut progress = Progress::new(Phase::Evaluate, 1, 9);
            progress.label = label.into();
            EventBody::Progress(progress)
        };
        let lines = shown([(0, at("step-1")), (1, at("step-2"))]);
        assert_eq!(lines, ["evaluate step-1 1/9", "evaluate step-2 1/9"]);
    }
}
