//! Errors of this process to failure reports.

use squad_proto::{FailureCode, FailureReport};
use squad_train::TrainError;

/// The report of an error: its code, and all it says on one line.
pub(crate) fn report(error: &TrainError) -> FailureReport {
    let text = error.to_string();
    out_of_memory(&text).unwrap_or_else(|| FailureReport::new(error.code(), text))
}

/// The report of a panic of the compute thread, on that thread.
pub(crate) fn of_panic(payload: &(dyn std::any::Any + Send)) -> FailureReport {
    let text = squad_train::memory::words_of(payload);
    out_of_memory(text).unwrap_or_else(|| {
        let first: String = text.lines().take(3).collect::<Vec<_>>().join(" ");
        FailureReport::new(FailureCode::Internal, format!("the compute thread panicked: {first}"))
    })
}

/// The report of memory that ran out, where that is what libtorch says.
fn out_of_memory(words: &str) -> Option<FailureReport> {
    let (summary, remedy) = squad_train::memory::ran_out(words)?;
    Some(FailureReport { remedy, ..FailureReport::new(FailureCode::OutOfMemory, summary) })
}
