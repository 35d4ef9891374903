//! Commands that squad-worker carries out: squadctl stays free of libtorch.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// Runs `squad-worker` with these arguments and the asked-for shape of output. Its stdout, stderr and exit code
/// are passed on.
pub(super) fn pass_on(arguments: &[OsString], output: Output) -> anyhow::Result<Verdict> {
    let program = squad_coordinator::find_worker_program()?;
    let mut command = Command::new(&program);
    command.args(arguments);
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

/// Refuses a folder that is not there, before a process is started for it.
pub(super) fn folder(flag: &str, path: &Path, hint: &str) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(BadUsage(format!("{flag} {}: there is no such folder; {hint}", path.display())).into())
}
