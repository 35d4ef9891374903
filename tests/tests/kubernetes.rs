//! A job on a cluster, by the commands, arguments, variables and volumes of its manifests: network namespaces stand in for
//! pods (`squad_tests::pods`). Takes root, and `ip`, `unshare` and `setpriv`; without them the test says that it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job as KubernetesJob;
use k8s_openapi::api::core::v1::{Probe, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use squad_tests::pods::{Cluster, Kept, Pod, main_process};
use squad_tests::{Finished, Job, manifests, program, repository, wait_for};

/// A model that is small enough.
const ZOO: &str = "tests/data/zoo/electra";

fn spec(job: &Job) -> Value {
    let mut spec = job.spec();
    spec["model"] = "/data/models/electra".into();
    spec["train"] = json!({
        "steps": 80, "checkpoint_every": 10, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1, "dropout": 0.1,
    });
    spec
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn base(name: &str) -> Vec<Value> {
    manifests::file(&repository().join("deploy/kubernetes/base").join(name))
}

/// The coordinator's pod, which runs.
struct Coordinator {
    pod: Pod,
    container: Child,
}

impl Coordinator {
    /// Does what docs/kubernetes.md says: certificates, Secret, `kubectl apply -k`.
    fn deploy(job: &Job, cluster: &mut Cluster) -> Self {
        let made = Command::new(program("squad-coordinator"))
            .args(["certificate", "--host", "squad-coordinator", "--host", "localhost", "--dir", "tls"])
            .current_dir(job.path(""))
            .status();
        assert!(made.unwrap().success());
        for (key, file) in [("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem")] {
            cluster.secret("squad-tls", key, &std::fs::read_to_string(job.path("tls").join(file)).unwrap());
        }
        let deployment: Deployment = manifests::one(&base("deployment.yaml"), "Deployment");
        let service: Service = manifests::one(&base("service.yaml"), "Service");
        let template = deployment.spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        let selected = service.spec.unwrap().selector.unwrap();
        assert!(
            selected.iter().all(|(key, value)| labels.get(key) == Some(value)),
            "the Service leads to the pod"
        );
        let address = cluster.next_address();
        cluster.resolve(&service.metadata.name.unwrap(), &address);

        let spec = template.spec.unwrap();
        let pod = cluster.pod("squad-coordinator-5d8c7", &spec, None);
        let container = pod.start();
        for probe in [&spec.containers[0].startup_probe, &spec.containers[0].readiness_probe] {
            wait_for("an answer to the kubelet's probe", || {
                answers(&pod, probe.as_ref().unwrap(), &spec.containers[0])
            });
        }
        Self { pod, container }
    }

    /// Runs squadctl through `kubectl port-forward`.
    fn squadctl(&self, job: &Job, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("squadctl"));
        let server = ["--server", "https://localhost:7311", "--ca", "tls/ca.pem", "--token-file", "token"];
        command.args(arguments).args(server).current_dir(job.path(""));
        Finished(self.pod.forwarded(&command).output().unwrap())
    }

    /// Makes a user's token by `kubectl exec`.
    fn make_token(&self, job: &Job) {
        let create = [
            "squad-coordinator",
            "token",
            "create",
            "--name",
            "ada",
            "--role",
            "submit",
            "--state",
            "/state",
        ];
        let token = self.pod.exec(main_process(&self.container), &create).success().stdout();
        std::fs::write(job.path("token"), token).unwrap();
        std::fs::set_permissions(job.path("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Submits the job, and makes the Secret of its ticket; gives its identifier.
    fn submit(&self, job: &Job, cluster: &Cluster, workers: &str) -> String {
        let submit = ["submit", "job.yaml", "-np", workers, "--external", "--ticket-file", "ticket"];
        let id = self.squadctl(job, &submit).success().stdout().trim().to_owned();
        cluster.secret("small-ticket", "ticket", &std::fs::read_to_string(job.path("ticket")).unwrap());
        id
    }

    /// Ends the container as the kubelet does; gives the exit code.
    fn end(&mut self) -> i32 {
        kill(Pid::from_raw(main_process(&self.container)), Signal::SIGTERM).unwrap();
        self.container.wait().unwrap().code().unwrap()
    }

    /// Starts the next one once the old one has ended: the strategy Recreate.
    fn replace(&mut self) {
        assert_eq!(self.end(), 0, "{}", self.pod.log());
        self.container = self.pod.start();
    }

    fn delete(mut self) -> i32 {
        self.end()
    }
}

/// Asks as the kubelet does, from outside of the pod, by the name of a port.
fn answers(pod: &Pod, probe: &Probe, container: &k8s_openapi::api::core::v1::Container) -> bool {
    let get = probe.http_get.as_ref().unwrap();
    let named = serde_json::to_value(&get.port).unwrap();
    let port = container.ports.iter().flatten().find(|port| port.name.as_deref() == named.as_str()).unwrap();
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect((pod.address.as_str(), port.container_port as u16))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(
            connection,
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            get.path.as_deref().unwrap(),
            pod.address
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Starts the pods of a rendered Job.
fn start_workers(job: &Job, cluster: &mut Cluster, render: &[&str]) -> Vec<(Pod, Kept)> {
    let all =
        [&["render", "kubernetes", "job.yaml", "--image", "squad-worker:0.1.0", "--threads", "1"], render]
            .concat();
    let documents = manifests::documents(&job.squadctl(&all).success().stdout());
    let indexed: KubernetesJob = manifests::one(&documents, "Job");
    let headless: Service = manifests::one(&documents, "Service");
    let (name, of) = (indexed.metadata.name.unwrap(), indexed.spec.unwrap());
    assert_eq!((of.completion_mode.as_deref(), of.completions), (Some("Indexed"), of.parallelism));
    let template = of.template.spec.unwrap();
    assert_eq!(template.restart_policy.as_deref(), Some("OnFailure"));
    assert_eq!(template.subdomain, headless.metadata.name);
    let pods = 0..of.completions.unwrap() as u32;
    let made: Vec<Pod> = pods
        .map(|index| {
            let host = format!("{name}-{index}");
            let address = cluster.next_address();
            cluster.resolve(&format!("{host}.{}", template.subdomain.as_deref().unwrap()), &address);
            cluster.pod(&host, &template, Some(index))
        })
        .collect();
    made.into_iter().map(|pod| (pod.clone(), pod.keep())).collect()
}

/// Waits for the ends of pods; gives the exit codes of each one's containers, and what all of them wrote.
fn ends(workers: Vec<(Pod, Kept)>) -> (Vec<Vec<i32>>, String) {
    let (pods, kept): (Vec<Pod>, Vec<Kept>) = workers.into_iter().unzip();
    let ends = kept.into_iter().map(Kept::ends).collect();
    (ends, pods.iter().map(Pod::log).collect::<Vec<_>>().join("\n---\n"))
}

/// What a process may do, of `/proc/PID/status`.
fn rights(pid: i32) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    ["Uid:", "CapEff:", "CapBnd:", "NoNewPrivs:"].map(of).to_vec()
}

/// A job whose files lie on the volume that all pods have.
fn job(cluster: &Cluster, job: &Job) -> PathBuf {
    job.write_spec(&spec(job));
    let data = cluster.claim("squad-data");
    copy(&repository().join(ZOO), &data.join("models/electra"));
    for file in ["train.json", "dev.json"] {
        std::fs::copy(job.path(file), data.join(file)).unwrap();
    }
    data
}

fn wait_for_step_15(data: &Path) {
    wait_for("step 15", || {
        std::fs::read_to_string(data.join("out/metrics.jsonl")).is_ok_and(|text| text.lines().count() >= 15)
    });
}

fn results(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("results.json")).unwrap()).unwrap()
}

#[test]
fn a_pod_is_killed_and_started_again_and_the_job_succeeds() {
    let job = Job::new();
    let Some(mut cluster) = Cluster::new(&job.path("cluster")) else { return };
    let data = self::job(&cluster, &job);
    let set = format!("model={}", repository().join(ZOO).display());
    job.squadctl(&["run", "job.yaml", "-np", "2", "--set", "output_dir=whole", "--set", &set]).success();

    let coordinator = Coordinator::deploy(&job, &mut cluster);
    coordinator.make_token(&job);
    let id = coordinator.submit(&job, &cluster, "2");
    let workers = start_workers(&job, &mut cluster, &["-np", "2"]);
    wait_for_step_15(&data);
    for (_, kept) in &workers {
        assert_eq!(rights(kept.main_process()), ["10001", "0000000000000000", "0000000000000000", "1"]);
    }
    workers[1].1.signal(Signal::SIGKILL);

    let (ends, said) = ends(workers);
    assert_eq!(ends[0], [0], "{said}");
    assert!(ends[1].len() == 2 && ends[1][0] != 0 && ends[1][1] == 0, "{ends:?}\n{said}");
    let done = coordinator.squadctl(&job, &["get", &id, "--output", "json"]).success().json();
    assert_eq!(done["state"], "succeeded", "{done}");
    let (there, here) = (results(&data.join("out")), results(&job.path("whole")));
    assert_eq!(there["train"]["restarts"], 1);
    for key in ["exact", "f1", "weights_sha256"] {
        assert_eq!(there[key], here[key], "{key}");
    }
    let log = std::fs::read_to_string(data.join("out/train.log")).unwrap();
    assert!(log.contains("2 ranks over tcp"), "the ring goes from pod to pod: {log}");
    assert_eq!(coordinator.delete(), 0);
}

#[test]
fn the_coordinator_is_replaced_while_pods_of_two_workers_train() {
    let job = Job::new();
    let Some(mut cluster) = Cluster::new(&job.path("cluster")) else { return };
    let data = self::job(&cluster, &job);
    let mut coordinator = Coordinator::deploy(&job, &mut cluster);
    coordinator.make_token(&job);
    let id = coordinator.submit(&job, &cluster, "4");
    let workers = start_workers(&job, &mut cluster, &["-np", "4", "--slots", "2"]);
    assert_eq!(workers.len(), 2);
    wait_for_step_15(&data);
    coordinator.replace();

    let (ends, said) = ends(workers);
    assert_eq!(ends, [[0], [0]], "{said}");
    let done = coordinator.squadctl(&job, &["get", &id, "--output", "json"]).success().json();
    assert_eq!(done["state"], "succeeded", "{done}");
    // Two lives, of which the second costs none of fault.max_restarts.
    let results = results(&data.join("out"));
    assert_eq!((&results["train"]["restarts"], &results["train"]["world_size"]), (&json!(1), &json!(4)));
    assert_eq!(coordinator.delete(), 0);
}
