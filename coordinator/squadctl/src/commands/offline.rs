//! Commands that need nothing but this program.

use anyhow::Context;
use clap::CommandFactory;
use serde_json::json;
use squad_proto::FailureCode;

use crate::cli::Cli;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Prints the page of a failure code.
pub(super) fn explain(code: &str, output: Output) -> anyhow::Result<Verdict> {
    let code: FailureCode = code.parse().map_err(BadUsage)?;
    let page = code.page();
    let title = page.lines().next().unwrap_or_default().trim_start_matches(&format!("# {code}: ")).to_owned();
    let document = json!({"code": code.as_str(), "title": title, "remedy": code.remedy(), "page": page});
    output.answer(&document, || page.to_owned())?;
    Ok(Verdict::Done)
}

/// Prints the schema of job specs, which is JSON in either format.
pub(super) fn schema(output: Output) -> anyhow::Result<Verdict> {
    output.document(&squad_proto::spec::schema())?;
    Ok(Verdict::Done)
}

/// Prints a shell's completion script.
pub(super) fn completions(shell: clap_complete::Shell, output: Output) -> anyhow::Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "squadctl", &mut script);
    let script = String::from_utf8(script).context("the completion script is no UTF-8")?;
    let document = json!({"shell": shell.to_string(), "script": script});
    output.answer(&document, || script.clone())?;
    Ok(Verdict::Done)
}
