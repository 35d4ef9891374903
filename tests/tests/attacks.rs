//! Attacks on a real daemon while a real job runs: each is refused, counted, and the job does not notice.
//!
//! `SQUAD_ATTACKS=full` attacks from a network namespace, which stands for another machine, and leaves the job alone for as
//! long again, in turn, and prints how long its steps took in either. It needs root and `ip`, and about ten minutes:
//! `SQUAD_ATTACKS=full cargo nextest run --workspace --test attacks --no-capture -E 'test(another_machine)'`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "what is skipped or measured is said")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use squad_tests::attack::{Target, attack};
use squad_tests::{Daemon, Job, program, wait_for};

/// How often the job is attacked from another machine and left alone again.
const ROUNDS: usize = 12;

/// Examples of a step of the job that is attacked.
const EXAMPLES: f64 = 4.0;

/// Holds what the attacker is told, in the process that attacks.
const TARGET: &str = "SQUAD_ATTACK_TARGET";

/// A worker program that writes its ticket down before it goes on as the true one, and reaches the daemon through
/// `proxy`. For a job named `other` it only waits: its token is what matters.
fn telltale(job: &Job, proxy: &str) -> PathBuf {
    let path = job.path("worker.sh");
    let text = format!(
        "#!/bin/bash\n\
         IFS= read -r ticket\n\
         umask 077; printf '%s\\n' \"$ticket\" > '{folder}'/ticket-$$.part\n\
         mv '{folder}'/ticket-$$.part '{folder}'/ticket-$$\n\
         case $ticket in *'\"name\":\"other\"'*) exec sleep 600 ;; esac\n\
         rest=${{ticket#*'\"server\":\"'}}; server=${{rest%%'\"'*}}\n\
         exec 3<&0\n\
         exec '{worker}' \"$@\" < <(printf '%s\\n' \"${{ticket/\"$server\"/{proxy}}}\"; exec cat <&3)\n",
        folder = job.path("").display(),
        worker = program("squad-worker").display(),
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The tickets that were written down so far.
fn tickets(folder: &Path) -> Vec<Value> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_ticket = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("ticket-") && !name.ends_with(".part")
    };
    names
        .filter(is_ticket)
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect()
}

/// The ticket of a job's workers.
fn ticket_of(job: &Job, name: &str) -> Value {
    let find = || tickets(&job.path("")).into_iter().find(|ticket| ticket["spec"]["name"] == name);
    wait_for("a ticket", || find().is_some());
    find().unwrap()
}

/// Passes workers' connections on to where their tickets say, and keeps what they send, in `recorded-N`.
fn record(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (mut near, ticket) = (stream.unwrap(), tickets(&folder).remove(0));
            let server = ticket["server"].as_str().unwrap().trim_start_matches("http://").to_owned();
            let mut far = TcpStream::connect(server).unwrap();
            let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || {
                std::io::copy(&mut back_from, &mut back_to).ok();
                back_to.shutdown(Shutdown::Both).ok();
            });
            let mut kept = std::fs::File::create(folder.join(format!("recorded-{number}"))).unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = near.read(&mut bytes) {
                    kept.write_all(&bytes[..count]).unwrap();
                    if far.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                far.shutdown(Shutdown::Both).ok();
            });
        }
    });
    address
}

/// Runs `squad-coordinator` to its end; gives what it printed.
fn coordinator(arguments: &[&str], state: &Path) -> String {
    let mut command = Command::new(program("squad-coordinator"));
    command.args(arguments);
    if arguments[0] == "token" {
        command.arg("--state").arg(state);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A daemon with tokens, and the arguments with which an admin asks it.
struct Stage {
    job: Job,
    daemon: Daemon,
    tokens: Vec<String>,
    asks: Vec<String>,
}

impl Stage {
    /// A stage for a daemon with these arguments, and the host that users ask for.
    fn set(arguments: &[&str]) -> Self {
        let job = Job::new();
        let state = job.path("state");
        let make = |role: &str| coordinator(&["token", "create", "--name", role, "--role", role], &state);
        let tokens: Vec<String> = ["read", "submit", "admin"].map(make).into();
        let file = job.path("token-admin");
        let mut open = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&file).unwrap();
        writeln!(open, "{}", tokens[2]).unwrap();
        let proxy = record(&job.path(""));
        let daemon = Daemon::start_with(&job, &telltale(&job, &proxy), arguments);
        let mut asks =
            vec!["--server".into(), daemon.url.clone(), "--token-file".into(), file.display().to_string()];
        if let Some(ca) = ca_of(&daemon, &job) {
            asks.extend(["--ca".into(), ca.display().to_string()]);
        }
        Self { job, daemon, tokens, asks }
    }

    fn ask(&self, words: &[&str]) -> Value {
        let asks: Vec<&str> = self.asks.iter().map(String::as_str).collect();
        self.job.squadctl(&[words, &asks, &["--output", "json"]].concat()).success().json()
    }

    /// Submits a job; gives its identifier.
    fn submit(&self, name: &str, workers: u32, steps: u64) -> String {
        let mut spec = self.job.spec();
        spec["name"] = name.into();
        spec["output_dir"] = format!("out-{name}").into();
        spec["train"]["steps"] = steps.into();
        spec["resources"]["workers"] = workers.into();
        // All steps are alike.
        spec["data"]["pad_to_multiple"] = 96.into();
        std::fs::write(self.job.path(&format!("{name}.yaml")), spec.to_string()).unwrap();
        self.ask(&["submit", &format!("{name}.yaml")])["id"].as_str().unwrap().to_owned()
    }

    fn step(&self, id: &str) -> u64 {
        self.ask(&["get", id])["progress"]["done"].as_u64().unwrap_or(0)
    }

    fn target(&self, id: &str, idle: usize) -> Target {
        Target {
            url: self.daemon.url.clone(),
            ca: ca_of(&self.daemon, &self.job),
            reader: self.tokens[0].clone(),
            submitter: self.tokens[1].clone(),
            job: id.to_owned(),
            other_token: ticket_of(&self.job, "other")["token"].as_str().unwrap().to_owned(),
            recorded: self.job.path("recorded-0"),
            spec: self.job.path("victim.yaml"),
            idle,
        }
    }
}

fn ca_of(daemon: &Daemon, job: &Job) -> Option<PathBuf> {
    daemon.url.starts_with("https").then(|| job.path("tls/ca.pem"))
}

/// Every attack was refused, and said to be so.
fn refused(outcome: &Value, message_says: &str) {
    for (attack, status, says) in [
        ("no_token", "Unauthenticated", "asks for a token"),
        ("wrong_token", "Unauthenticated", "not known here"),
        ("small_role", "PermissionDenied", "needs a token of the role submit"),
        ("other_job", "PermissionDenied", "another token"),
        ("user_token", "PermissionDenied", "another token"),
        ("oversized", "OutOfRange", message_says),
        ("escape_up", "InvalidArgument", "output_dir: "),
        ("escape_root", "InvalidArgument", "model: /etc is outside of"),
    ] {
        assert_eq!(outcome[attack]["status"], status, "{attack}: {outcome}");
        assert!(outcome[attack]["message"].as_str().unwrap().contains(says), "{attack}: {outcome}");
    }
    assert!(outcome["replayed"]["ended_s"].is_number(), "{outcome}");
    assert!(outcome["replayed"]["bytes"].as_u64().unwrap() > 100, "{outcome}");
    for attack in ["slow", "idle"] {
        assert_eq!(outcome[attack]["left"], 0, "{attack}: {outcome}");
        assert!(outcome[attack]["opened"].as_u64().unwrap() >= 20, "{attack}: {outcome}");
    }
}

/// What is in the files of a folder, by path.
fn contents(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            contents(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path, bytes));
        }
    }
}

/// Looks for secrets in what any process shows of itself, and in all files that a job and its daemon write.
fn search(secrets: &[String], job: &Job) {
    let mut places = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for name in ["environ", "cmdline"] {
            // Processes come and go.
            if let Ok(bytes) = std::fs::read(entry.path().join(name)) {
                places.push((entry.path().join(name), bytes));
            }
        }
    }
    let shown = places.len();
    contents(&job.path(""), &mut places);
    places.retain(|(path, _)| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !["ticket-", "token-", "recorded-"].iter().any(|ours| name.starts_with(ours))
    });
    assert!(shown > 10 && places.len() > shown + 5, "{shown} {}", places.len());
    for (path, bytes) in places {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} has a secret in it", path.display());
        }
    }
}

#[test]
fn a_job_runs_on_while_everything_is_tried() {
    let stage = Stage::set(&[
        "--listen",
        "127.0.0.1:0",
        "--first-request-s",
        "2",
        "--idle-s",
        "3",
        "--max-connections-per-address",
        "100",
    ]);
    let victim = stage.submit("victim", 2, 100_000);
    wait_for("a step", || stage.step(&victim) > 0);
    stage.submit("other", 1, 100_000);
    let target = stage.target(&victim, 200);
    let before = stage.step(&victim);
    let outcome = attack(&target);
    refused(&outcome, "message length too large");
    wait_for("another step", || stage.step(&victim) > before);
    let job = stage.ask(&["get", &victim]);
    assert_eq!(job["state"], "running", "{job}");

    let mut secrets = stage.tokens.clone();
    secrets.extend(
        tickets(&stage.job.path("")).iter().map(|ticket| ticket["token"].as_str().unwrap().to_owned()),
    );
    assert!(secrets.len() >= 5 && secrets.iter().all(|secret| secret.len() >= 32), "{}", secrets.len());
    search(&secrets, &stage.job);
    let events = stage.job.squadctl(
        &[
            &["cancel", &victim, "--wait"],
            stage.asks.iter().map(String::as_str).collect::<Vec<_>>().as_slice(),
        ]
        .concat(),
    );
    assert_eq!(events.code(), 0, "{}", events.stderr());
    let log = std::fs::read_to_string(&stage.daemon.log).unwrap();
    assert!(!log.contains("restarting"), "{log}");
}

/// The stranger, in a process of its own: prints what came of it.
#[test]
#[ignore = "the attacker of the test below"]
fn stranger() {
    let Ok(text) = std::env::var(TARGET) else { return };
    let target = Target::from_json(&serde_json::from_str(&text).unwrap());
    println!("outcome {}", attack(&target));
}

/// Another machine: a network namespace with a cable to this one. Gone when dropped.
struct OtherMachine;

const HERE: &str = "10.231.7.1";

impl OtherMachine {
    fn cabled() -> Option<Self> {
        let machine = Self;
        let ip = |line: &str| {
            let done = Command::new("ip").args(line.split(' ')).stderr(Stdio::inherit()).status();
            done.is_ok_and(|status| status.success())
        };
        // One that a killed run has left.
        Command::new("ip").args(["netns", "del", "squad-attack"]).stderr(Stdio::null()).status().ok();
        let all = ip("netns add squad-attack")
            && ip("link add squad-here type veth peer name squad-there")
            && ip("link set squad-there netns squad-attack")
            && ip(&format!("addr add {HERE}/24 dev squad-here"))
            && ip("link set squad-here up")
            && ip("-n squad-attack addr add 10.231.7.2/24 dev squad-there")
            && ip("-n squad-attack link set squad-there up");
        all.then_some(machine)
    }

    /// Attacks from there.
    fn attack(&self, target: &Target) -> Value {
        let own = std::env::current_exe().unwrap();
        let line = format!("ulimit -n 4096; exec '{}' --exact stranger --ignored --nocapture", own.display());
        let output = Command::new("ip")
            // Another machine takes no processor time of this one; so this takes as little as it can.
            .args(["netns", "exec", "squad-attack", "nice", "-n", "19", "bash", "-c", &line])
            .env(TARGET, target.to_json().to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found =
            text.lines().find_map(|line| line.split_once("outcome ").map(|(_, json)| json.to_owned()));
        serde_json::from_str(&found.unwrap_or_else(|| panic!("{text}"))).unwrap()
    }
}

impl Drop for OtherMachine {
    fn drop(&mut self) {
        // With the namespace its end of the cable goes, and with that the other end.
        Command::new("ip").args(["netns", "del", "squad-attack"]).status().ok();
    }
}

#[test]
fn another_machine_gets_nowhere() {
    if std::env::var("SQUAD_ATTACKS").as_deref() != Ok("full") {
        eprintln!("SKIPPED: attacks from another machine; SQUAD_ATTACKS=full runs them");
        return;
    }
    let Some(machine) = OtherMachine::cabled() else {
        eprintln!("SKIPPED: no network namespace can be made here (it takes root, and ip of iproute2)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    coordinator(&["certificate", "--host", HERE, "--dir", tls.to_str().unwrap()], folder.path());
    let (certificate, key) = (tls.join("server.pem"), tls.join("server.key"));
    let listen = format!("{HERE}:0");
    let stage = Stage::set(&[
        "--listen",
        &listen,
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ]);
    std::fs::create_dir(stage.job.path("tls")).unwrap();
    std::fs::copy(tls.join("ca.pem"), stage.job.path("tls/ca.pem")).unwrap();
    stage.submit("other", 1, 100_000);
    let victim = stage.submit("victim", 2, 100_000);
    // Before, progress is that of loading.
    wait_for("steps", || stage.step(&victim) > 3);
    let target = stage.target(&victim, 1000);
    let mut slower = Vec::new();
    for round in 0..ROUNDS {
        let (begun, first) = (Instant::now(), stage.step(&victim));
        let outcome = machine.attack(&target);
        let (window, between) = (begun.elapsed(), stage.step(&victim));
        if round == 0 {
            eprintln!("{outcome:#}");
        }
        refused(&outcome, "message length too large");
        std::thread::sleep(window);
        let last = stage.step(&victim);
        let times = step_times(&stage.job.path("out-victim/metrics.jsonl"));
        // A step on the border is in neither.
        let of = |from: u64, to: u64| mean(&times[from as usize + 1..to as usize]);
        let (attacked, alone) = (of(first, between), of(between, last));
        slower.push(100.0 * (attacked / alone - 1.0));
        eprintln!(
            "{:.1} s each: a step takes {attacked:.3} s attacked, {alone:.3} s left alone ({:+.1} %)",
            window.as_secs_f64(),
            slower[round]
        );
    }
    let job = stage.ask(&["get", &victim]);
    assert_eq!(job["state"], "running", "{job}");
    let middle = mean(&slower);
    let squares: f64 = slower.iter().map(|one| (one - middle).powi(2)).sum();
    let error = (squares / (ROUNDS * (ROUNDS - 1)) as f64).sqrt();
    slower.sort_by(f64::total_cmp);
    let median = mean(&slower[(ROUNDS - 1) / 2..=ROUNDS / 2]);
    eprintln!(
        "attacked, a step takes {median:+.1} % longer (median of {ROUNDS} rounds), {middle:+.1} % in the mean, whose \
         standard error is {error:.1}"
    );
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Seconds of each step so far, from the figures that a run writes about each.
fn step_times(metrics: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(metrics).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| EXAMPLES / line["examples_per_second"].as_f64().unwrap()).collect()
}
