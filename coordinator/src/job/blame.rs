//! Many reports, one root cause.
//!
//! When a rank dies, its neighbours see broken connections, then theirs do. Reports that can only be echoes
//! are marked `secondary`; the first one that is not wins. Processes that died without a report speak
//! through their exit.

use squad_proto::{FailureCode, FailureReport};

use super::event::Exit;

/// What to do where the machine's memory, or a control group's, ran out.
const STARVED: &str = "give the workers more memory (the container's or the Slurm job's limit), start fewer of them on one \
                       machine, or lower train.batch_size and raise train.accumulate as much; train.recompute: true \
                       needs less, too";

/// The report of a process that ended without one.
pub(crate) fn of_exit(rank: u32, exit: Exit, tail: Vec<String>) -> FailureReport {
    let starved = matches!(exit, Exit::OutOfMemory(_));
    let code = if starved { FailureCode::OutOfMemory } else { FailureCode::WorkerDied };
    let mut report = FailureReport::new(code, format!("the worker process {exit}")).of_rank(rank);
    if starved {
        report.remedy = STARVED.into();
    }
    report.stderr_tail = tail;
    report
}

/// How much a report says about the cause: the first that is there wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// A rank's own report, a process that was killed, or what the coordinator saw itself.
    Cause,
    /// A process that ended without a word, or is out of sight: it may be the cause, or have fled from it.
    Flight,
    /// What can only follow from another's failure.
    Echo,
}

/// The weight of a report.
pub(crate) fn weight(report: &FailureReport, exit: Option<Exit>) -> Weight {
    match exit {
        _ if report.secondary => Weight::Echo,
        Some(Exit::Code(_) | Exit::Unseen | Exit::Lost) => Weight::Flight,
        Some(Exit::Signal(_) | Exit::OutOfMemory(_)) | None => Weight::Cause,
    }
}

/// The root cause among reports: the weightiest, and among equals the one that came in first.
pub(crate) fn root(reports: &[(Weight, FailureReport)]) -> Option<&FailureReport> {
    reports.iter().min_by_key(|(weight, _)| *weight).map(|(_, report)| report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_proto::OutOfMemory;

    #[test]
    fn echoes_lose_against_causes() {
        let echo = FailureReport::new(FailureCode::Collective, "peer 1 is gone").of_rank(0);
        let cause = of_exit(1, Exit::Signal(9), vec!["last".into()]);
        assert!(cause.summary.contains("signal 9 (SIGKILL)"), "{}", cause.summary);
        let flight = of_exit(2, Exit::Code(7), vec![]);
        let echo = (weight(&echo, None), echo);
        let flight = (weight(&flight, Some(Exit::Code(7))), flight);
        let cause = (weight(&cause, Some(Exit::Signal(9))), cause);
        assert_eq!(root(&[echo.clone(), flight.clone(), cause.clone()]), Some(&cause.1));
        assert_eq!(root(&[echo.clone(), flight.clone()]), Some(&flight.1));
        assert_eq!(root(std::slice::from_ref(&echo)), Some(&echo.1));
        assert_eq!(root(&[]), None);
        let starved = Exit::OutOfMemory(OutOfMemory { limit: Some(512 << 20) });
        let report = of_exit(1, starved, vec![]);
        assert_eq!((report.code, weight(&report, Some(starved))), (FailureCode::OutOfMemory, Weight::Cause));
        assert!(report.summary.ends_with("memory ran out: its control group may have 512 MiB"), "{report}");
        assert!(report.remedy.contains("limit"), "{}", report.remedy);
    }
}
