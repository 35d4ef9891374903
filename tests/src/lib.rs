//! Support for whole-system tests: the real programs, real weights, small jobs.
//!
//! The programs are those that `cargo build --workspace --bins` made in the profile of the tests; the weights are
//! those that `scripts/fetch_minilm.sh` put into `models/`. `scripts/test.sh` does both first.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "support for tests only")]

pub mod attack;
pub mod faults;
pub mod load;
pub mod manifests;
pub mod pods;
pub mod written;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// A program that the workspace builds.
pub fn program(name: &str) -> PathBuf {
    // target/PROFILE/deps/this-test
    let own = std::env::current_exe().expect("a test knows its program");
    let folder = own.ancestors().nth(2).expect("target/PROFILE/deps");
    let program = folder.join(name);
    assert!(program.is_file(), "{} is not built: cargo build --workspace --bins", program.display());
    program
}

/// The pretrained weights.
pub fn minilm() -> PathBuf {
    let folder = repository().join("models/all-MiniLM-L6-v2");
    assert!(folder.join("model.safetensors").is_file(), "no weights: run scripts/fetch_minilm.sh");
    folder
}

/// A folder with a job that takes a few seconds.
pub struct Job {
    folder: tempfile::TempDir,
}

impl Default for Job {
    fn default() -> Self {
        Self::new()
    }
}

impl Job {
    /// A job of a few steps over the first of quickstart's questions, with two workers.
    pub fn new() -> Self {
        let job = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let examples = repository().join("examples/quickstart");
        for (name, articles) in [("train", 6), ("dev", 2)] {
            let text = std::fs::read_to_string(examples.join(format!("{name}-v1.1.json")))
                .expect("quickstart's data");
            let mut data: Value = serde_json::from_str(&text).expect("JSON");
            data["data"].as_array_mut().expect("articles").truncate(articles);
            std::fs::write(job.path(&format!("{name}.json")), data.to_string()).expect("writable");
        }
        job.write_spec(&job.spec());
        job
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The spec.
    pub fn spec(&self) -> Value {
        serde_json::json!({
            "name": "small", "model": minilm(), "head": "span", "output_dir": "out",
            "data": {
                "version": "1.1", "train": "train.json", "dev": "dev.json",
                "max_seq_length": 96, "doc_stride": 32, "window": "overlap",
            },
            "train": {"steps": 6, "batch_size": 2, "learning_rate": 1e-4, "log_every": 1, "bias_correction": true},
            "resources": {"workers": 2},
            "fault": {"patience_s": 40},
        })
    }

    /// Writes job.yaml (JSON is YAML).
    pub fn write_spec(&self, spec: &Value) {
        std::fs::write(self.path("job.yaml"), spec.to_string()).expect("writable");
    }

    /// Runs squadctl in the folder, to its end.
    pub fn squadctl(&self, arguments: &[&str]) -> Finished {
        Finished(self.command(arguments).output().expect("squadctl starts"))
    }

    /// Starts squadctl in the folder.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("squadctl starts")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("squadctl"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["SQUADCTL_SERVER", "SQUADCTL_TOKEN", "SQUADCTL_TOKEN_FILE", "SQUADCTL_CA"] {
            command.env_remove(name);
        }
        command.env("SQUAD_WORKER", program("squad-worker"));
        command
    }

    /// A JSON file in the folder.
    pub fn json(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A job of many quick steps on a tiny model, with a checkpoint every ten.
    pub fn of_quick_steps(steps: u64) -> Self {
        let job = Self::new();
        let mut spec = job.spec();
        spec["model"] = repository().join("tests/data/zoo/electra").to_string_lossy().into();
        spec["train"] = json!({
            "steps": steps, "checkpoint_every": 10, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1, "dropout": 0.1,
        });
        job.write_spec(&spec);
        job
    }

    /// Exact match, F1 and the weights that a run has come to.
    pub fn outcome(&self, output: &str) -> [Value; 3] {
        let results = self.json(&format!("{output}/results.json"));
        ["exact", "f1", "weights_sha256"].map(|key| results[key].clone())
    }

    /// The losses of metrics.jsonl.
    pub fn losses(&self, output: &str) -> Vec<f64> {
        let text = std::fs::read_to_string(self.path(output).join("metrics.jsonl")).expect("metrics.jsonl");
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["loss"].as_f64().expect("a loss"))
            .collect()
    }
}

/// What a program printed, and how it ended.
pub struct Finished(pub Output);

impl Finished {
    /// Waits for a process to end.
    pub fn wait(process: Child) -> Self {
        Self(process.wait_with_output().expect("its output"))
    }

    /// The exit code; a signal is a failure of the test.
    pub fn code(&self) -> i32 {
        self.0.status.code().expect("ended by itself")
    }

    /// Standard output.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout())
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout(), self.stderr()))
    }

    /// Fails the test unless the program succeeded.
    pub fn success(self) -> Self {
        assert_eq!(self.code(), 0, "stdout: {}\nstderr: {}", self.stdout(), self.stderr());
        self
    }
}

/// A daemon on a free port; killed when dropped.
pub struct Daemon {
    process: Child,
    /// Where it listens, as `--server` wants it.
    pub url: String,
    /// What it and its workers write to standard error.
    pub log: PathBuf,
}

impl Daemon {
    /// Starts a daemon whose root is the job's folder.
    pub fn start(job: &Job) -> Self {
        Self::start_with(job, &program("squad-worker"), &["--listen", "127.0.0.1:0", "--web", "off"])
    }

    /// Starts the next daemon at the address of one that has ended, with its state.
    pub fn start_again(&mut self, job: &Job) {
        let address = self.url.trim_start_matches("http://").to_owned();
        *self = Self::start_with(job, &program("squad-worker"), &["--listen", &address, "--web", "off"]);
    }

    /// The same with another worker program, and more arguments: `--listen` among them.
    pub fn start_with(job: &Job, worker: &Path, arguments: &[&str]) -> Self {
        let port_file = job.path("port");
        if port_file.exists() {
            std::fs::remove_file(&port_file).expect("removable");
        }
        let log = job.path("daemon.log");
        let said = std::fs::File::options().create(true).append(true).open(&log).expect("writable");
        let process = Command::new(program("squad-coordinator"))
            .args(["serve", "--slots", "4", "--root"])
            .arg(job.path(""))
            .arg("--allow-path")
            .arg(minilm())
            .arg("--allow-path")
            .arg(repository().join("tests/data"))
            .arg("--state")
            .arg(job.path("state"))
            .arg("--port-file")
            .arg(&port_file)
            .arg("--worker")
            .arg(worker)
            .args(arguments)
            .stderr(said)
            .spawn()
            .expect("the daemon starts");
        wait_for("the daemon's port", || port_file.exists());
        let address = std::fs::read_to_string(&port_file).expect("readable");
        let scheme = if arguments.contains(&"--tls-cert") { "https" } else { "http" };
        Self { process, url: format!("{scheme}://{}", address.trim()), log }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Where its page is (`HOST:PORT`), for a daemon with one.
    pub fn page(&self) -> String {
        let find = || {
            let said = std::fs::read_to_string(&self.log).expect("readable");
            let (_, rest) = said.rsplit_once("the page is at http://")?;
            Some(rest.split_once('/')?.0.to_owned())
        };
        wait_for("the page's address", || find().is_some());
        find().expect("it was there")
    }

    /// Kills the daemon, and nobody else.
    pub fn kill(&mut self) {
        self.process.kill().expect("it lives");
        self.process.wait().expect("it ends");
    }

    /// Asks the daemon to end, and waits for it.
    pub fn terminate(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it lives");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Waits for a condition, a minute at most.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Process ids of workers whose ticket or folder names `marker`: found by their working folder.
pub fn workers_in(folder: &Path) -> Vec<i32> {
    let folder = folder.canonicalize().expect("a folder");
    let mut found: Vec<i32> = std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let place = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            name.trim() == "squad-worker" && place == folder
        })
        .collect();
    found.sort_unstable();
    found
}

/// Reads a pipe to its end.
pub fn read_all(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_string(&mut text).expect("readable");
    }
    text
}
