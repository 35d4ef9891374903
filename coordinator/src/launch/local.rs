//! Worker processes on this machine.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use squad_proto::{Deadlines, MemoryGroup, Ticket, threads};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

use super::identity::{Identity, kill_group};
use super::lines::Sink;
use crate::job::Exit;

/// Starts `squad-worker join`.
#[derive(Clone, Debug)]
pub(crate) struct LocalLauncher {
    program: PathBuf,
    /// How many bytes of each rank's output are kept.
    log_bytes: u64,
}

/// A worker that runs. Dropping it kills the worker's process group.
pub(crate) struct Launched {
    group: Pid,
    /// The lifeline.
    _stdin: ChildStdin,
}

impl LocalLauncher {
    /// A launcher of this program.
    pub(crate) fn new(program: PathBuf, log_bytes: u64) -> Self {
        Self { program, log_bytes }
    }

    /// Starts a worker, which finds `gpus` in `CUDA_VISIBLE_DEVICES` if there are such. `born` is called with its identity before it is told anything, `ended` once with its exit and
    /// its last lines.
    pub(crate) async fn launch(
        &self,
        (ticket, gpus): (&Ticket, Option<String>),
        log: &Path,
        born: impl FnOnce(Identity),
        ended: impl FnOnce(Exit, Vec<String>) + Send + 'static,
    ) -> Result<Launched, String> {
        let cannot = |e: std::io::Error| format!("cannot start {}: {e}", self.program.display());
        let mut command = Command::new(&self.program);
        command
            .arg("join")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C reaches the launcher only, and a kill reaches what it started.
            .process_group(0)
            .kill_on_drop(true);
        command.envs(gpus.map(|gpus| ("CUDA_VISIBLE_DEVICES", gpus)));
        threads::prepare(command.as_std_mut(), Some(ticket.threads));
        let mut child = command.spawn().map_err(cannot)?;
        let pid = child.id().ok_or_else(|| "the worker ended at once".to_owned())?;
        let mut stdin = child.stdin.take().ok_or_else(|| "no pipe to the worker".to_owned())?;
        match Identity::of(pid as i32) {
            Ok(identity) => born(identity),
            // Its exit says more.
            Err(error) => tracing::debug!("worker {pid} cannot be told from others: {error}"),
        }
        let group = MemoryGroup::of(&pid.to_string(), &read);
        let mut line = serde_json::to_vec(ticket).map_err(|e| e.to_string())?;
        line.push(b'\n');
        // A worker that is gone already is told by its exit.
        if let Err(error) = stdin.write_all(&line).await {
            tracing::debug!("the worker did not take its ticket: {error}");
        }
        let last_words = Deadlines::from_patience(ticket.patience()).last_words;
        tokio::spawn(attend(child, (group, last_words), Sink::new(log, self.log_bytes), ended));
        Ok(Launched { group: Pid::from_raw(pid as i32), _stdin: stdin })
    }
}

/// A file of the system's, if it can be read.
fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Drains a worker's output and waits for its end.
async fn attend(
    mut child: Child,
    (group, last_words): (Option<MemoryGroup>, Duration),
    sink: Sink,
    ended: impl FnOnce(Exit, Vec<String>),
) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err) = (sink.clone(), sink.clone());
    let drains = async move {
        let out = async {
            if let Some(pipe) = stdout {
                out.drain(pipe, false).await
            }
        };
        let err = async {
            if let Some(pipe) = stderr {
                err.drain(pipe, true).await
            }
        };
        tokio::join!(out, err)
    };
    let mut drains = std::pin::pin!(drains);
    let mut drained = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut drains, if !drained => drained = true,
        }
    };
    if !drained && tokio::time::timeout(last_words, &mut drains).await.is_err() {
        tracing::debug!("a worker's output stayed open after its end");
    }
    let exit = match status {
        Ok(status) => exit_of(status, group.as_ref()),
        Err(error) => {
            tracing::error!("cannot wait for a worker: {error}");
            Exit::Code(-1)
        }
    };
    ended(exit, sink.tail());
}

/// How a process ended; one that was killed in a group in which the kernel has just killed for memory died of that.
fn exit_of(status: std::process::ExitStatus, group: Option<&MemoryGroup>) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let starved = || group.and_then(|group| group.cause(&read));
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) if signal == Signal::SIGKILL as i32 => {
            starved().map_or(Exit::Signal(signal), Exit::OutOfMemory)
        }
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

impl Launched {
    /// Signals the worker's whole group.
    pub(crate) fn kill(&self, hard: bool) {
        kill_group(self.group, hard);
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.kill(true);
    }
}
