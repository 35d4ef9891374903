//! A pod whose address and volumes are there, and its container.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Finished, repository, wait_for};

/// A pod.
#[derive(Clone)]
pub struct Pod {
    pub(super) name: String,
    pub(super) namespace: String,
    /// Its address.
    pub address: String,
    pub(super) folder: PathBuf,
    pub(super) image: Vec<(PathBuf, String)>,
    pub(super) container: Container,
    pub(super) spec: PodSpec,
    pub(super) index: Option<u32>,
}

impl Pod {
    /// User, group and group of volumes.
    pub(super) fn numbers(&self) -> [u32; 3] {
        let context = self.spec.security_context.as_ref().expect("a security context");
        [context.run_as_user, context.run_as_group, context.fs_group].map(|id| id.expect("a number") as u32)
    }

    fn variables(&self) -> Vec<String> {
        let own = self.container.env.as_deref().unwrap_or_default();
        let mut all: Vec<String> = own
            .iter()
            .map(|one| format!("{}={}", one.name, one.value.as_deref().expect("a value")))
            .collect();
        all.extend(self.index.map(|index| format!("JOB_COMPLETION_INDEX={index}")));
        all.push(format!("HOSTNAME={}", self.name));
        all
    }

    /// Starts the container: its command and arguments are those of the template.
    pub fn start(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).expect("writable");
        Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh"])
            .arg(repository().join("tests/src/pod.sh"))
            .arg(&self.folder)
            .arg(&self.name)
            .args(self.numbers().map(|id| id.to_string()))
            .args(self.variables())
            .args(self.container.command.iter().flatten())
            .args(self.container.args.iter().flatten())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("ip starts")
    }

    /// What the container wrote, all of its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Runs a program of this machine in the pod's network: what `kubectl port-forward` reaches.
    pub fn forwarded(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.namespace]).arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    /// Runs a command in the container, as `kubectl exec` does.
    pub fn exec(&self, main: i32, command: &[&str]) -> Finished {
        let [user, group, fs_group] = self.numbers().map(|id| id.to_string());
        let inside = Command::new("nsenter")
            .args([
                "--target",
                &main.to_string(),
                "--mount",
                "--pid",
                "--net",
                "--uts",
                "--ipc",
                "--root",
                "--wd=/",
            ])
            .args(["setpriv", "--reuid", &user, "--regid", &group, "--groups", &fs_group, "--no-new-privs"])
            .args(["env", "-i", "PATH=/usr/local/bin:/usr/bin"])
            .args(command)
            .output();
        Finished(inside.expect("nsenter starts"))
    }

    /// Starts the container, and starts it again as long as it fails: restartPolicy OnFailure.
    pub fn keep(&self) -> Kept {
        let pod = self.clone();
        let running = Arc::new(Mutex::new(pod.start()));
        let watched = Arc::clone(&running);
        let ends = std::thread::spawn(move || {
            let mut ends = Vec::new();
            loop {
                let ended = loop {
                    if let Some(status) = watched.lock().expect("held").try_wait().expect("a child") {
                        break status;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                };
                // A container's runtime tells of a signal as a shell does.
                let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default());
                ends.push(code);
                if code == 0 || ends.len() > 3 {
                    return ends;
                }
                *watched.lock().expect("held") = pod.start();
            }
        });
        Kept { running, ends }
    }
}

/// A pod whose container is started again when it fails.
pub struct Kept {
    running: Arc<Mutex<Child>>,
    ends: JoinHandle<Vec<i32>>,
}

impl Kept {
    /// The container's first process, as this machine numbers it.
    pub fn main_process(&self) -> i32 {
        main_process(&self.running.lock().expect("held"))
    }

    /// Sends the container a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.main_process()), signal).expect("it lives");
    }

    /// Waits for the pod's end; gives the exit codes of its container's lives. One that was killed has some code that is not 0:
    /// `unshare` does not always pass on which signal it was.
    pub fn ends(self) -> Vec<i32> {
        self.ends.join().expect("nobody panicked")
    }
}

/// The first process of a container that [`Pod::start`] started.
pub fn main_process(container: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", container.id());
    let mut found = None;
    wait_for("the container's first process", || {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        found = text.split_whitespace().next().map(|pid| pid.parse().expect("a number"));
        found.is_some()
    });
    found.expect("just found")
}
