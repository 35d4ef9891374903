//! One question to a fine-tuned model.
//!
//! squadctl stays free of libtorch, so a worker process answers.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::Context;

use crate::cli::PredictArgs;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Runs `squad-worker predict`; its stdout, stderr and exit code are passed on.
pub(super) fn predict(question: &PredictArgs, output: Output) -> anyhow::Result<Verdict> {
    if !question.model.is_dir() {
        let text = format!(
            "--model {}: there is no such folder; a finished run has one in its output folder, model/",
            question.model.display()
        );
        return Err(BadUsage(text).into());
    }
    if let Some(file) = question.context_file.as_ref().filter(|file| !file.is_file()) {
        return Err(BadUsage(format!("--context-file {}: there is no such file", file.display())).into());
    }
    let program = squad_coordinator::find_worker_program()?;
    let mut command = Command::new(&program);
    command.arg("predict").arg("--model").arg(&question.model);
    // With `=`, so that a text that begins with a hyphen is no flag.
    command.arg(format!("--question={}", question.question));
    if let Some(context) = &question.context {
        command.arg(format!("--context={context}"));
    }
    if let Some(file) = &question.context_file {
        command.arg("--context-file").arg(file);
    }
    if let Some(count) = question.n_best {
        command.arg("--n-best").arg(count.to_string());
    }
    if let Some(probability) = question.null_threshold {
        command.arg("--null-threshold").arg(probability.to_string());
    }
    if output.is_json() {
        command.args(["--output", "json"]);
    }
    if std::env::var_os("SQUAD_LOG").is_none() {
        // Only the answer is of interest, not how the worker comes to it.
        command.env("SQUAD_LOG", "error");
    }
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    // As a shell has it: 128 and the signal's number for a process that was killed.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(Verdict::Passed(u8::try_from(code).unwrap_or(1)))
}
