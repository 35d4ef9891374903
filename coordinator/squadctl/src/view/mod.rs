//! A job's events as they come: bars on a terminal, lines elsewhere, JSON for programs.
//!
//! What a job ended with is not shown here: the report at the end says it once (`report`).

mod bars;
mod json;
mod lines;

use squad_proto::{Event, EventBody};

use crate::output::Output;

/// Shows events.
pub(crate) trait View: Send {
    /// Shows an event.
    fn show(&mut self, event: &Event);

    /// Shows a line of squadctl's own.
    fn say(&mut self, text: &str);

    /// Leaves the terminal as others expect it.
    fn close(&mut self);
}

/// The view that fits the user's wish and terminal.
pub(crate) fn new(output: Output) -> Box<dyn View> {
    if output.is_json() {
        Box::new(json::JsonLines::new(output))
    } else if output.is_live() {
        Box::new(bars::Bars::new(output.is_coloured()))
    } else {
        Box::new(lines::Lines::new(move |line: &str| output.talk(line)))
    }
}

/// The line for an event that is no progress; `None` for those that the report at the end repeats.
fn line(event: &Event) -> Option<String> {
    match &event.body {
        EventBody::State { state, .. } if state.is_final() => None,
        EventBody::State { state, reason } if reason.is_empty() => Some(state.to_string()),
        EventBody::State { state, reason } => Some(format!("{state}: {reason}")),
        EventBody::Note { rank: Some(rank), text } => Some(format!("rank {rank}: {text}")),
        EventBody::Note { rank: None, text } => Some(text.clone()),
        EventBody::Progress(_) | EventBody::Failure(_) | EventBody::Results { .. } => None,
    }
}
