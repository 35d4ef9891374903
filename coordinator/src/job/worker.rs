//! One worker of the present life, as far as the coordinator knows.

use std::time::Duration;

use squad_proto::{Deadlines, FailureReport, Phase};

use super::rendezvous::Having;

/// One worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Worker {
    /// Where its ring listens; it has said Hello.
    pub(crate) ring: Option<String>,
    /// What it has; it is ready.
    pub(crate) ready: Option<Having>,
    /// When it was last heard of; launched counts.
    pub(crate) heard: Duration,
    pub(crate) position: Option<(Phase, u64)>,
    /// It has done all that was asked of it.
    pub(crate) completed: bool,
    /// Completed or stopped.
    pub(crate) ended: bool,
    pub(crate) gone: bool,
}

impl Worker {
    /// The report with what the worker was last known to do. Ranks take their steps together, so where the gang was
    /// known to be, at `place`, it was too.
    pub(crate) fn located(&self, mut report: FailureReport, place: (Phase, u64)) -> FailureReport {
        report.phase = self.position.map(|(phase, _)| phase);
        if report.phase == Some(Phase::Train) && place.0 == Phase::Train {
            report.step = Some(place.1);
        }
        report
    }

    /// When a worker that was launched at `started` counts as lost, and why.
    pub(crate) fn limit(&self, started: Duration, deadlines: &Deadlines) -> Option<(Duration, &'static str)> {
        let silent = self.heard + deadlines.silence;
        let late = started + deadlines.ready;
        if self.gone {
            None
        } else if self.ring.is_none() {
            Some((started + deadlines.hello, "the worker was started but never said hello"))
        } else if self.ended {
            let at = self.heard + deadlines.stop_grace;
            Some((at, "the worker reported its end but its process stayed"))
        } else if self.ready.is_none() && late < silent {
            Some((late, "the worker took too long to load data and weights"))
        } else {
            Some((silent, "the worker's control thread fell silent"))
        }
    }
}
