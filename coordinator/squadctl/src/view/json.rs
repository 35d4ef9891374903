//! Events as JSON lines on stderr; stdout stays free for the one document at the end.

use serde_json::json;
use squad_proto::Event;

use super::View;
use crate::output::Output;

/// One line for each event.
pub(super) struct JsonLines {
    output: Output,
}

impl JsonLines {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }
}

impl View for JsonLines {
    fn show(&mut self, event: &Event) {
        // An event always has a JSON form; were there one without, watching goes on.
        if let Ok(line) = serde_json::to_string(event) {
            self.output.talk(&line);
        }
    }

    /// A note without a sequence number: it is no part of the job's history.
    fn say(&mut self, text: &str) {
        self.output.talk(&json!({"event": "note", "text": text}).to_string());
    }

    fn close(&mut self) {}
}
