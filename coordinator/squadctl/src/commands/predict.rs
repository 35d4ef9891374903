//! One question to a fine-tuned model.

use std::ffi::OsString;

use super::worker;
use crate::cli::PredictArgs;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Runs `squad-worker predict`.
pub(super) fn predict(question: &PredictArgs, output: Output) -> anyhow::Result<Verdict> {
    worker::folder("--model", &question.model, "a finished run has one in its output folder, model/")?;
    if let Some(file) = question.context_file.as_ref().filter(|file| !file.is_file()) {
        return Err(BadUsage(format!("--context-file {}: there is no such file", file.display())).into());
    }
    let mut arguments: Vec<OsString> = vec!["predict".into(), "--model".into(), (&question.model).into()];
    // With `=`, so that a text that begins with a hyphen is no flag.
    arguments.push(format!("--question={}", question.question).into());
    if let Some(context) = &question.context {
        arguments.push(format!("--context={context}").into());
    }
    if let Some(file) = &question.context_file {
        arguments.extend(["--context-file".into(), file.into()]);
    }
    if let Some(count) = question.n_best {
        arguments.extend(["--n-best".into(), count.to_string().into()]);
    }
    if let Some(probability) = question.null_threshold {
        arguments.extend(["--null-threshold".into(), probability.to_string().into()]);
    }
    worker::pass_on(&arguments, output)
}
