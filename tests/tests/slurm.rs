//! `deploy/slurm/squad.sbatch` under a real Slurm of one node, which lives as long as the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use squad_tests::{Finished, Job, program, repository, wait_for};

/// A cluster of this machine. Its daemons end when it is dropped.
struct Slurm {
    folder: PathBuf,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a program is there and works.
fn is_there(program: &str, version: &str) -> bool {
    Command::new(program).arg(version).output().is_ok_and(|output| output.status.success())
}

fn start(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} did not start");
}

impl Slurm {
    fn start(folder: &Path) -> Self {
        let place = folder.display();
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let host = host.split('.').next().unwrap();
        for name in ["state", "spool"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let key: Vec<u8> = (0..1024u32).map(|k| (k * 31 % 251) as u8).collect();
        std::fs::write(folder.join("munge.key"), key).unwrap();
        Command::new("chmod").args(["600", "munge.key"]).current_dir(folder).status().unwrap();
        let cluster = Self { folder: folder.to_owned() };
        let files = ["key-file", "pid-file", "log-file", "seed-file"].map(|flag| {
            let name = flag.trim_end_matches("-file");
            format!("--{flag}={place}/munge.{name}")
        });
        let socket = format!("--socket={place}/munge.sock");
        start("munged", &[&files.each_ref().map(String::as_str)[..], &[&socket, "--force"]].concat());
        let (controller, node) = (free_port(), free_port());
        let text = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
             SlurmUser=root\nAuthType=auth/munge\nAuthInfo=socket={place}/munge.sock\nCredType=cred/munge\n\
             StateSaveLocation={place}/state\nSlurmdSpoolDir={place}/spool\nSlurmctldPidFile={place}/slurmctld.pid\n\
             SlurmdPidFile={place}/slurmd.pid\nSlurmctldLogFile={place}/slurmctld.log\n\
             SlurmdLogFile={place}/slurmd.log\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             SelectType=select/cons_tres\nReturnToService=2\nMpiDefault=none\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN\nPartitionName=all Nodes={host} Default=YES\n"
        );
        std::fs::write(cluster.configuration(), text).unwrap();
        let configuration = cluster.configuration();
        let configuration = configuration.to_str().unwrap();
        start("slurmctld", &["-f", configuration]);
        start("slurmd", &["-f", configuration, "-N", host]);
        wait_for("an idle node", || cluster.ask("sinfo", &["-h", "-o", "%T"]).stdout().trim() == "idle");
        cluster
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("slurm.conf")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.configuration());
        command
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Finished {
        Finished(self.command(program).args(arguments).output().unwrap())
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for name in ["slurmd", "slurmctld", "munge"] {
            let pid = std::fs::read_to_string(self.folder.join(name).with_extension("pid"));
            if let Some(pid) = pid.ok().and_then(|text| text.trim().parse().ok()) {
                // It may not have come up.
                kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
                wait_for("the end of a daemon", || !Path::new(&format!("/proc/{pid}")).exists());
            }
        }
    }
}

#[test]
fn a_batch_job_gives_the_same_as_squadctl_run() {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root || !["slurmctld", "slurmd", "munged"].iter().all(|p| is_there(p, "-V")) {
        eprintln!("SKIPPED: no Slurm to start here (Debian: slurm-wlm and munge, as root)");
        return;
    }
    let job = Job::new();
    let mut spec = job.spec();
    spec["model"] = repository().join("tests/data/zoo/electra").to_string_lossy().into();
    spec["train"] = json!({"steps": 20, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1});
    job.write_spec(&spec);
    job.squadctl(&["run", "job.yaml", "-np", "2", "--set", "output_dir=whole"]).success();

    let place = tempfile::tempdir().unwrap();
    let slurm = Slurm::start(place.path());
    let script = repository().join("deploy/slurm/squad.sbatch");
    let submit = |further: &[&str]| {
        let mut command = slurm.command("sbatch");
        command.args(["--wait", "--output", "slurm.out"]).arg(&script).arg("job.yaml").args(further);
        command.env("SQUAD_WORKER", program("squad-worker")).env("OMP_NUM_THREADS", "1");
        let finished = Finished(command.current_dir(job.path("")).output().unwrap());
        let said = std::fs::read_to_string(job.path("slurm.out")).unwrap_or_default();
        (finished.code(), format!("{}{said}", finished.stderr()))
    };
    let (code, said) = submit(&[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("exact"), "the results are in the job's output: {said}");
    for key in ["exact", "f1", "weights_sha256"] {
        assert_eq!(job.json("out/results.json")[key], job.json("whole/results.json")[key], "{key}");
    }
    let (code, said) = submit(&["--resume"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the run is complete"), "{said}");
}
