//! Many reports, one root cause.
//!
//! When a rank dies, its neighbours see broken connections, then theirs do. Reports that can only be echoes
//! are marked `secondary`; the first one that is not wins. Processes that died without a report speak
//! through their exit.

use squad_proto::{FailureCode, FailureReport};

use super::event::Exit;

/// The report of a process that ended without one.
pub(crate) fn of_exit(rank: u32, exit: Exit, tail: Vec<String>) -> FailureReport {
    let mut report = FailureReport::new(FailureCode::WorkerDied, format!("the worker process {exit}")).of_rank(rank);
    report.stderr_tail = tail;
    report
}

/// The root cause among reports, in the order in which they came in.
pub(crate) fn root(reports: &[FailureReport]) -> Option<&FailureReport> {
    reports.iter().find(|report| !report.secondary).or(reports.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_lose_against_causes() {
        let echo = FailureReport::new(FailureCode::Collective, "peer 1 is gone").of_rank(0);
        let cause = of_exit(1, Exit::Signal(9), vec!["last".into()]);
        assert!(cause.summary.contains("signal 9 (SIGKILL)"), "{}", cause.summary);
        assert_eq!(root(&[echo.clone(), cause.clone()]), Some(&cause));
        assert_eq!(root(std::slice::from_ref(&echo)), Some(&echo));
        assert_eq!(root(&[]), None);
    }
}
