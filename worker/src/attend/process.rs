//! The worker of one life, as a process of its own: its memory, threads and sockets end with it.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use squad_proto::{Deadlines, Generation, MemoryGroup, OutOfMemory, Ticket, threads};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::Sender;

/// Lines of standard error that a failure report shows.
const TAIL: usize = 20;
/// Longest line that is passed on whole, in characters.
const LONGEST: usize = 4096;

/// What a worker's process does.
#[derive(Debug)]
pub(crate) enum Sign {
    /// It wrote a line.
    Line(String),
    /// It ended.
    Exited {
        /// Its life.
        generation: Generation,
        /// How.
        status: std::io::Result<std::process::ExitStatus>,
        /// The last lines of its standard error.
        tail: Vec<String>,
        /// The kernel has killed it, or one beside it, because memory ran out.
        starved: Option<OutOfMemory>,
    },
}

/// A worker that runs. Dropping it kills its process group.
pub(crate) struct Process {
    /// Its life.
    pub(crate) generation: Generation,
    group: Pid,
    /// The lifeline.
    _stdin: ChildStdin,
}

impl Process {
    /// Starts this program again as the worker of a ticket.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) async fn start(ticket: &Ticket, signs: Sender<Sign>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell where squad-worker is")?;
        let mut command = Command::new(&program);
        command
            .arg("join")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        threads::prepare(command.as_std_mut(), Some(ticket.threads));
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("the worker ended at once")?;
        let mut stdin = child.stdin.take().context("no pipe to the worker")?;
        let mut line = serde_json::to_vec(ticket).context("cannot write the worker's ticket")?;
        line.push(b'\n');
        // A worker that is gone already is told by its exit.
        stdin.write_all(&line).await.ok();
        let generation = ticket.generation;
        let last_words = Deadlines::from_patience(ticket.patience()).last_words;
        let group = MemoryGroup::of(&pid.to_string(), &read);
        tokio::spawn(watch(child, (generation, group, last_words), signs));
        Ok(Self { generation, group: Pid::from_raw(pid as i32), _stdin: stdin })
    }

    /// Asks the worker to end, and kills it after a while.
    pub(crate) fn end_within(&self, grace: Duration) {
        self.kill(false);
        let group = self.group;
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            // It is gone by now, usually.
            killpg(group, Signal::SIGKILL).ok();
        });
    }

    /// Signals the worker's whole group; a group that is gone is no error.
    pub(crate) fn kill(&self, hard: bool) {
        let signal = if hard { Signal::SIGKILL } else { Signal::SIGTERM };
        if let Err(error) = killpg(self.group, signal)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!("cannot signal worker group {}: {error}", self.group);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill(true);
    }
}

/// A file of the system's, if it can be read.
fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Passes on a worker's output and its end.
async fn watch(
    mut child: Child,
    (generation, group, last_words): (Generation, Option<MemoryGroup>, Duration),
    signs: Sender<Sign>,
) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut tail = VecDeque::new();
    let status = {
        let mut drains = std::pin::pin!(async {
            let mut untold = VecDeque::new();
            tokio::join!(drain(stdout, &signs, &mut untold), drain(stderr, &signs, &mut tail))
        });
        let mut drained = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = &mut drains, if !drained => drained = true,
            }
        };
        if !drained && tokio::time::timeout(last_words, &mut drains).await.is_err() {
            tracing::debug!("the worker's output stayed open after its end");
        }
        status
    };
    let starved = group.and_then(|group| group.cause(&read));
    // Nobody listens when the attendant itself is about to end.
    signs.send(Sign::Exited { generation, status, tail: tail.into(), starved }).await.ok();
}

/// Reads to the end, so that the worker never waits for a full pipe.
async fn drain(from: Option<impl AsyncRead + Unpin>, signs: &Sender<Sign>, tail: &mut VecDeque<String>) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim_end_matches(['\n', '\r']).chars().take(LONGEST).collect();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(text.clone());
        // Lines that come faster than the coordinator takes them are left out: training does not wait for its log.
        signs.try_send(Sign::Line(text)).ok();
    }
}
