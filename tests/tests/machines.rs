//! Workers on other machines: network namespaces with addresses of their own stand in for them. Takes root, and `ip` of
//! iproute2; without them the test says that it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use squad_tests::{Daemon, Finished, Job, program, wait_for};

/// The coordinator's machine.
const HERE: &str = "10.231.8.1";

/// Two machines beside this one, on one switch.
struct Machines;

fn ip(line: &str) -> bool {
    let done = Command::new("ip").args(line.split(' ')).stderr(Stdio::inherit()).status();
    done.is_ok_and(|status| status.success())
}

impl Machines {
    fn cabled() -> Option<Self> {
        let machines = Self;
        let mut all = ip("link add squad-switch type bridge")
            && ip(&format!("addr add {HERE}/24 dev squad-switch"))
            && ip("link set squad-switch up");
        for machine in 0..2 {
            let name = format!("squad-machine-{machine}");
            all = all
                && ip(&format!("netns add {name}"))
                && ip(&format!("link add squad-port-{machine} type veth peer name eth0 netns {name}"))
                && ip(&format!("link set squad-port-{machine} master squad-switch up"))
                && ip(&format!("-n {name} addr add 10.231.8.{}/24 dev eth0", machine + 2))
                && ip(&format!("-n {name} link set eth0 up"))
                && ip(&format!("-n {name} link set lo up"));
        }
        all.then_some(machines)
    }

    /// Starts a rank on a machine of its own, in a process group of its own.
    fn start(&self, job: &Job, rank: u32) -> Child {
        use std::os::unix::process::CommandExt;
        Command::new("ip")
            .args(["netns", "exec", &format!("squad-machine-{rank}")])
            // Process numbers of its own: else both would find that they are on one host, and share memory.
            .args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(program("squad-worker"))
            .args(["join", "--ticket", "ticket"])
            .current_dir(job.path(""))
            .envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".into()), ("OMP_NUM_THREADS", "1".into())])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Takes everything that runs on a machine away.
    fn lose(&self, rank: u32, attendant: Child) {
        let pids =
            Command::new("ip").args(["netns", "pids", &format!("squad-machine-{rank}")]).output().unwrap();
        for pid in String::from_utf8(pids.stdout).unwrap().split_whitespace() {
            nix::sys::signal::kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).ok();
        }
        killpg(Pid::from_raw(attendant.id() as i32), Signal::SIGKILL).ok();
        Finished::wait(attendant);
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in 0..2 {
            // With the namespace its end of the cable goes, and with that the other end.
            Command::new("ip").args(["netns", "del", &format!("squad-machine-{machine}")]).status().ok();
        }
        Command::new("ip").args(["link", "del", "squad-switch"]).status().ok();
    }
}

/// Runs `squad-coordinator` to its end; gives what it printed.
fn coordinator(job: &Job, arguments: &[&str]) -> String {
    let output = Command::new(program("squad-coordinator"))
        .args(arguments)
        .current_dir(job.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_machine_is_lost_and_the_job_goes_on_with_the_weights_of_one_machine() {
    let Some(machines) = Machines::cabled() else {
        eprintln!("SKIPPED: no network namespaces can be made here (it takes root, and ip of iproute2)");
        return;
    };
    let job = Job::of_quick_steps(80);
    job.squadctl(&["run", "job.yaml", "-np", "2", "--set", "output_dir=whole"]).success();

    coordinator(&job, &["certificate", "--host", HERE, "--dir", "tls"]);
    let token =
        coordinator(&job, &["token", "create", "--name", "ada", "--role", "submit", "--state", "state"]);
    std::fs::write(job.path("token"), token).unwrap();
    std::fs::set_permissions(job.path("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let (certificate, key) = (job.path("tls/server.pem"), job.path("tls/server.key"));
    let listen = format!("{HERE}:0");
    let arguments = [
        "--listen",
        &listen,
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let daemon = Daemon::start_with(&job, &program("squad-worker"), &arguments);
    let asks = ["--server", &daemon.url, "--ca", "tls/ca.pem", "--token-file", "token"];

    let submit = ["submit", "job.yaml", "--external", "--ticket-file", "ticket", "-np", "2"];
    let id = job.squadctl(&[&submit[..], &asks].concat()).success().stdout().trim().to_owned();
    let (first, second) = (machines.start(&job, 0), machines.start(&job, 1));
    wait_for("step 15", || {
        std::fs::read_to_string(job.path("out/metrics.jsonl")).is_ok_and(|text| text.lines().count() >= 15)
    });
    machines.lose(1, second);
    let second = machines.start(&job, 1);

    let (first, second) = (Finished::wait(first), Finished::wait(second));
    assert_eq!((first.code(), second.code()), (0, 0), "{}\n{}", first.stderr(), second.stderr());
    let get = ["get", &id, "--output", "json"];
    let done = job.squadctl(&[&get[..], &asks].concat()).success().json();
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(job.json("out/results.json")["train"]["restarts"], 1);
    assert_eq!(job.outcome("out"), job.outcome("whole"));
    let log = std::fs::read_to_string(job.path("out/train.log")).unwrap();
    assert!(log.contains("2 ranks over tcp"), "the ring goes from machine to machine: {log}");
}
