//! Errors of this process to failure reports.

use squad_proto::{FailureCode, FailureReport};
use squad_train::TrainError;

/// The report of an error: its code, and all it says on one line.
pub(crate) fn report(error: &TrainError) -> FailureReport {
    FailureReport::new(error.code(), error.to_string())
}

/// The report of a panic of the compute thread.
pub(crate) fn of_panic(payload: &(dyn std::any::Any + Send)) -> FailureReport {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let first: String = text.lines().take(3).collect::<Vec<_>>().join(" ");
    if first.contains("not enough memory") || first.contains("DefaultCPUAllocator") {
        let mut report = FailureReport::new(FailureCode::WorkerDied, format!("memory ran out: {first}"));
        report.remedy =
            "lower train.batch_size (or data.tokens_per_batch) and raise train.accumulate: the global batch stays the same"
                .into();
        return report;
    }
    FailureReport::new(FailureCode::Internal, format!("the compute thread panicked: {first}"))
}
