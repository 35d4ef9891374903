//! A live bar for each phase.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use squad_proto::{Event, EventBody, Pace, Phase, Progress};

use super::View;
use crate::figures;

/// Bars that redraw themselves; lines scroll above them.
pub(super) struct Bars {
    all: MultiProgress,
    style: ProgressStyle,
    /// The bar of the phase that goes on.
    current: Option<Current>,
}

struct Current {
    phase: Phase,
    label: String,
    bar: ProgressBar,
    pace: Pace,
}

impl Bars {
    pub(super) fn new(coloured: bool) -> Self {
        Self::on(ProgressDrawTarget::stderr(), coloured)
    }

    fn on(target: ProgressDrawTarget, coloured: bool) -> Self {
        let bar = if coloured { "{bar:24.cyan/blue}" } else { "{bar:24}" };
        let template = format!("{{prefix:9}} {bar} {{pos:>6}}/{{len:<6}} {{wide_msg}}");
        // A bar of another look is better than none.
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let all = MultiProgress::with_draw_target(target);
        Self { all, style: style.progress_chars("█▉▊▋▌▍▎▏ "), current: None }
    }

    fn progress(&mut self, unix_ms: u64, progress: &Progress) {
        let same = |c: &Current| c.phase == progress.phase && c.label == progress.label;
        if !self.current.as_ref().is_some_and(same) {
            self.close();
        }
        let current = self.current.get_or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(progress.total).with_style(self.style.clone()));
            bar.set_prefix(progress.phase.as_str());
            Current { phase: progress.phase, label: progress.label.clone(), bar, pace: Pace::default() }
        });
        current.pace.observe(unix_ms, progress);
        let eta = current.pace.rest().map(|rest| format!("ETA {}", figures::duration(rest)));
        let parts = [progress.label.clone(), figures::of(progress), eta.unwrap_or_default()];
        let shown: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        current.bar.set_length(progress.total);
        current.bar.set_position(progress.done);
        current.bar.set_message(shown.join("  "));
    }
}

impl View for Bars {
    fn show(&mut self, event: &Event) {
        match &event.body {
            EventBody::Progress(progress) => self.progress(event.unix_ms, progress),
            _ => {
                if let Some(line) = super::line(event) {
                    self.say(&line);
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        // A terminal that is gone has no reader either.
        drop(self.all.println(text));
    }

    /// Leaves the bar of the phase standing as far as it came.
    fn close(&mut self) {
        if let Some(current) = self.current.take() {
            current.bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_has_a_bar_until_the_next_begins() {
        let mut bars = Bars::on(ProgressDrawTarget::hidden(), false);
        let event = |phase, done| {
            let mut progress = Progress::new(phase, done, 10);
            progress.loss = Some(1.5);
            Event { sequence: 1, unix_ms: done * 1000, body: EventBody::Progress(progress) }
        };
        bars.show(&event(Phase::Train, 1));
        bars.show(&event(Phase::Train, 5));
        let train = bars.current.as_ref().unwrap().bar.clone();
        assert_eq!((train.position(), train.prefix().as_str()), (5, "train"));
        assert_eq!(train.message(), "loss 1.5000  ETA 5.0 s");
        bars.show(&event(Phase::Evaluate, 2));
        assert!(train.is_finished());
        assert_eq!(bars.current.as_ref().unwrap().bar.prefix(), "evaluate");
        bars.close();
    }
}
