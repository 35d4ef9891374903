//! Commands that need nothing but this program.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use serde_json::{Value, json};
use squad_proto::FailureCode;

use crate::cli::Cli;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;
use crate::reference::{codes_page, spec_page};

/// Prints the page of a failure code, or of all.
pub(super) fn explain(code: &str, output: Output) -> anyhow::Result<Verdict> {
    if code == "all" {
        let all: Vec<_> = FailureCode::ALL.iter().map(|code| about(*code)).collect();
        output.answer(&all, codes_page)?;
        return Ok(Verdict::Done);
    }
    let code: FailureCode = code.parse().map_err(BadUsage)?;
    output.answer(&about(code), || code.page().to_owned())?;
    Ok(Verdict::Done)
}

/// What is known of a code, as a document.
fn about(code: FailureCode) -> Value {
    let page = code.page();
    let title = page.lines().next().unwrap_or_default().trim_start_matches(&format!("# {code}: ")).to_owned();
    json!({"code": code.as_str(), "title": title, "remedy": code.remedy(), "page": page})
}

/// Prints the schema of job specs: JSON in either format, or a page.
pub(super) fn schema(markdown: bool, output: Output) -> anyhow::Result<Verdict> {
    let schema = squad_proto::spec::schema();
    if markdown {
        output.answer(&schema, || spec_page(&schema))?
    } else {
        output.document(&schema)?
    }
    Ok(Verdict::Done)
}

/// Writes the manual pages, one for each command.
pub(super) fn man(folder: &Path, output: Output) -> anyhow::Result<Verdict> {
    let cannot = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(cannot)?;
    let document = json!({"folder": folder});
    output.answer(&document, || format!("manual pages are in {}", folder.display()))?;
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
