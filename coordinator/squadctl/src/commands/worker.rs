//! Commands that squad-worker carries out: squadctl stays free of libtorch.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output as Finished, Stdio};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use squad_proto::threads;

use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Runs `squad-worker` with these arguments and the asked-for shape of output. Its stdout, stderr and exit code
/// are passed on.
pub(super) fn pass_on(arguments: &[OsString], output: Output) -> anyhow::Result<Verdict> {
    let program = squad_coordinator::find_worker_program()?;
    let mut command = Command::new(&program);
    command.args(arguments);
    threads::prepare(&mut command, None);
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

/// Runs `squad-worker` with these arguments, tells it `orders` on its standard input, and gives the one JSON document
/// that it answers with.
///
/// # Errors
/// What it says where it fails.
pub(super) fn answer<T: DeserializeOwned>(
    arguments: &[OsString],
    orders: &[u8],
    output: Output,
) -> anyhow::Result<T> {
    let program = squad_coordinator::find_worker_program()?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    threads::prepare(&mut command, None);
    if std::env::var_os("SQUAD_LOG").is_none() {
        command.env("SQUAD_LOG", "error");
    }
    let cannot = || format!("cannot start {}", program.display());
    let mut child = command.spawn().with_context(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that is gone already is told by its end.
        stdin.write_all(orders).ok();
    }
    let Finished { status, stdout, stderr } = child.wait_with_output().with_context(cannot)?;
    let said = String::from_utf8_lossy(&stderr);
    if !status.success() {
        // All that was said last, which may be several lines.
        match said.rsplit_once("ERROR ").map(|(_, sentence)| sentence.trim()) {
            Some(sentence) => bail!("{sentence}"),
            None => bail!("squad-worker {}: {status}: {}", arguments[0].display(), said.trim()),
        }
    }
    if !said.trim().is_empty() {
        // What SQUAD_LOG asks for.
        output.talk(said.trim_end());
    }
    serde_json::from_slice(&stdout).with_context(|| format!("{} gave no answer", program.display()))
}

/// Refuses a folder that is not there, before a process is started for it.
pub(super) fn folder(flag: &str, path: &Path, hint: &str) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(BadUsage(format!("{flag} {}: there is no such folder; {hint}", path.display())).into())
}
