//! One worker of the present life, as far as the coordinator knows.

use std::time::Duration;

use serde::Serialize;
use squad_proto::{Deadlines, FailureReport, Phase};

use super::late::Told;
use super::rendezvous::Having;

/// How far a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its process is started.
    Launched,
    /// It said hello, and loads weights and features.
    Joined,
    /// It has all it needs.
    Ready,
    /// It did all that was asked of it, or stopped when asked to.
    Ended,
    /// Its process is gone, though it had not ended.
    Gone,
}

impl Stage {
    /// The name as users read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launched => "launched",
            Self::Joined => "joined",
            Self::Ready => "ready",
            Self::Ended => "ended",
            Self::Gone => "gone",
        }
    }
}

/// One worker at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankStatus {
    /// How far it is.
    pub stage: Stage,
    /// What it said last that it does, and how far it is with that.
    pub position: Option<(Phase, u64)>,
    /// How long it has not been heard of.
    pub silent: Duration,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Worker {
    /// Its place among all that the job was given.
    pub(crate) slot: u32,
    /// Where its ring listens; it has said Hello.
    pub(crate) ring: Option<String>,
    /// What it has; it is ready.
    pub(crate) ready: Option<Having>,
    /// When it was last heard of; launched counts.
    pub(crate) heard: Duration,
    pub(crate) position: Option<(Phase, u64)>,
    /// What it said last that it does.
    pub(crate) doing: Option<Told>,
    /// When it was told to begin, or finished something since.
    pub(crate) moved: Option<Duration>,
    /// It has done all that was asked of it.
    pub(crate) completed: bool,
    /// Completed or stopped.
    pub(crate) ended: bool,
    pub(crate) gone: bool,
}

impl Worker {
    /// What others may see of it at time `now`.
    pub(crate) fn status(&self, now: Duration) -> RankStatus {
        let stage = match self {
            Self { ended: true, .. } => Stage::Ended,
            Self { gone: true, .. } => Stage::Gone,
            Self { ready: Some(_), .. } => Stage::Ready,
            Self { ring: Some(_), .. } => Stage::Joined,
            _ => Stage::Launched,
        };
        RankStatus { stage, position: self.position, silent: now.saturating_sub(self.heard) }
    }

    /// The report with what the worker was last known to do. Ranks take their steps together, so where the gang was
    /// known to be, at `place`, it was too.
    pub(crate) fn located(&self, mut report: FailureReport, place: (Phase, u64)) -> FailureReport {
        report.phase = self.position.map(|(phase, _)| phase);
        if report.phase == Some(Phase::Train) && place.0 == Phase::Train {
            report.step = Some(place.1);
        }
        report
    }

    /// When a worker that was launched at `started` counts as lost, why, and since when it is waited for.
    pub(crate) fn limit(
        &self,
        started: Duration,
        deadlines: &Deadlines,
    ) -> Option<(Duration, &'static str, Duration)> {
        let silent = self.heard + deadlines.silence;
        let late = started + deadlines.ready;
        if self.gone {
            None
        } else if self.ring.is_none() {
            Some((started + deadlines.hello, "the worker was started but never said hello", started))
        } else if self.ended {
            let at = self.heard + deadlines.stop_grace;
            Some((at, "the worker reported its end but its process stayed", self.heard))
        } else if self.ready.is_none() && late < silent {
            Some((late, "the worker took too long to load data and weights", started))
        } else if let Some(moved) = self.moved
            && moved + deadlines.progress < silent
        {
            Some((moved + deadlines.progress, "the worker lives, but finished nothing for too long", moved))
        } else {
            Some((silent, "the worker's control thread fell silent", self.heard))
        }
    }
}
