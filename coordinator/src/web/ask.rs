//! A question to a finished model: `squad-worker predict` answers it, since the coordinator links no libtorch.

use std::path::Path as FilePath;
use std::process::{Output, Stdio};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use squad_proto::{JobId, JobState, threads};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::Shared;
use super::api::{Refusal, unknown};

/// An answer comes within this, or not at all: loading a large model takes most of it. Fixed:
/// the job is over by then.
const DEADLINE: Duration = Duration::from_secs(120);
/// Longest question, and longest text, in bytes: what fits on a command line, with room.
const LONGEST: usize = 64 << 10;

/// One question at a time: each loads a model.
#[derive(Default)]
pub(super) struct Desk(Mutex<()>);

/// A question about a text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    question: String,
    context: String,
}

/// `POST /api/jobs/ID/ask`: what `squad-worker predict --output json` prints.
pub(super) async fn ask(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, Refusal> {
    let record = shared.registry.get(&JobId(id.clone())).ok_or_else(|| unknown(&id))?;
    let model = FilePath::new(&record.output_dir).join("model");
    if record.state != JobState::Succeeded || !model.is_dir() {
        let sentence = format!("{id} has no finished model in {}", model.display());
        return Err(Refusal(StatusCode::CONFLICT, sentence));
    }
    check(&question)?;
    let Ok(_turn) = shared.desk.0.try_lock() else {
        let sentence = "another question is being answered; ask again in a moment";
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, sentence.into()));
    };
    let config = shared.registry.config();
    let Some(program) = &config.worker_program else {
        let sentence = "this coordinator has no squad-worker program, which answers questions";
        return Err(Refusal(StatusCode::CONFLICT, sentence.into()));
    };
    let mut command = Command::new(program);
    command.arg("predict").arg("--model").arg(&model).args(["--output", "json"]);
    // With `=`, so that a text that begins with a hyphen is no flag.
    command.arg(format!("--question={}", question.question)).arg(format!("--context={}", question.context));
    command.env("SQUAD_LOG", "error");
    threads::prepare(command.as_std_mut(), Some(config.threads_of(1)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let broken = |sentence| Refusal(StatusCode::BAD_GATEWAY, sentence);
    let output = match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            return Err(broken(format!("cannot start {}: {error}", program.display())));
        }
        Err(_) => return Err(broken(format!("no answer within {} s", DEADLINE.as_secs()))),
    };
    answer(&output).map(Json).map_err(broken)
}

fn check(question: &Question) -> Result<(), Refusal> {
    for (what, text) in [("question", &question.question), ("text", &question.context)] {
        let wrong = if text.trim().is_empty() {
            "is empty"
        } else if text.len() > LONGEST {
            "is too long"
        } else if text.contains('\0') {
            "holds a zero byte"
        } else {
            continue;
        };
        return Err(Refusal(StatusCode::BAD_REQUEST, format!("the {what} {wrong}")));
    }
    Ok(())
}

/// The worker's answer, or the last thing that it said instead.
fn answer(output: &Output) -> Result<Value, String> {
    if output.status.success() {
        return serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the worker's answer: {error}"));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("without a word");
    // Its log lines begin with a moment and a level.
    let sentence = last.split_once("ERROR ").map_or(last, |(_, sentence)| sentence);
    Err(format!("squad-worker could not answer: {sentence}"))
}
