//! The real program: its words, its answers and its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod daemon;
mod data;
mod doctor;
mod evaluate;
mod help;
mod jobs;
mod models;
mod pages;
mod plan;
mod recipes;
mod render;
mod run;
mod scripted;
mod specs;
mod top;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a call of the program came to.
struct Call {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Call {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not one JSON document ({e}): {}", self.stdout))
    }
}

/// The program, away from the caller's settings.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squadctl"));
    command.args(arguments).env_remove("SQUADCTL_SERVER").env_remove("SQUAD_LOG").stdin(Stdio::null());
    command
}

/// Presses Ctrl-C once the program has said `sign`; gives its exit code, stdout and stderr.
fn interrupted(mut command: Command, sign: &str) -> Call {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut from = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = String::new();
    while !stderr.contains(sign) {
        assert_ne!(from.read_line(&mut stderr).unwrap(), 0, "it never said {sign}: {stderr}");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    from.read_to_string(&mut stderr).unwrap();
    let output = child.wait_with_output().unwrap();
    Call { code: output.status.code().unwrap(), stdout: String::from_utf8(output.stdout).unwrap(), stderr }
}

/// Calls squadctl in `folder`.
fn squadctl_in(folder: &Path, arguments: &[&str]) -> Call {
    let Output { status, stdout, stderr } = program(arguments).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Call { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

fn squadctl(arguments: &[&str]) -> Call {
    squadctl_in(Path::new("."), arguments)
}
