//! What the manifests of `deploy/kubernetes` say agrees with itself, with the programs, and with what `squadctl render` writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, Namespace, PersistentVolumeClaim, PodSpec, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use squad_tests::{Finished, manifests, program, repository};

fn place(name: &str) -> PathBuf {
    repository().join("deploy/kubernetes").join(name)
}

fn documents(name: &str) -> Vec<Value> {
    manifests::file(&place(name))
}

fn deployment() -> Deployment {
    manifests::one(&documents("base/deployment.yaml"), "Deployment")
}

fn coordinator() -> PodSpec {
    deployment().spec.unwrap().template.spec.unwrap()
}

fn job() -> JobSpec {
    manifests::one::<Job>(&documents("job/job.yaml"), "Job").spec.unwrap()
}

/// The Job inside of the JobSet.
fn job_of_set() -> JobSpec {
    let set = &documents("jobset/jobset.yaml")[1];
    assert_eq!((&set["kind"], &set["apiVersion"]), (&"JobSet".into(), &"jobset.x-k8s.io/v1alpha2".into()));
    manifests::typed(&set["spec"]["replicatedJobs"][0]["template"]["spec"])
}

fn pods() -> [PodSpec; 3] {
    [coordinator(), job().template.spec.unwrap(), job_of_set().template.spec.unwrap()]
}

fn render(arguments: &[&str]) -> String {
    let output = Command::new(program("squadctl"))
        .args(["render", "kubernetes", "job/spec.yaml", "--image", "squad-worker"])
        .args(arguments)
        .current_dir(place(""))
        .output();
    Finished(output.unwrap()).success().stdout()
}

/// The values of flags, written as `--flag=value` or `--flag value`.
fn flags(container: &Container) -> BTreeMap<String, String> {
    let words = container.args.iter().flatten().flat_map(|word| match word.split_once('=') {
        Some((flag, value)) => vec![flag.to_owned(), value.to_owned()],
        None => vec![word.clone()],
    });
    let words: Vec<String> = words.collect();
    words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

#[test]
fn the_committed_jobs_are_what_render_writes() {
    for (file, arguments) in [("job/job.yaml", &[][..]), ("jobset/jobset.yaml", &["--kind", "jobset"])] {
        let committed = std::fs::read_to_string(place(file)).unwrap();
        assert_eq!(render(arguments), committed, "write {file} anew: squadctl render kubernetes");
    }
    let (set, job) = (job_of_set(), job());
    let own = |job: JobSpec| {
        let mut template = job.template.clone();
        template.spec.as_mut().unwrap().subdomain = None;
        JobSpec { template, ttl_seconds_after_finished: None, ..job }
    };
    assert_eq!(own(set), own(job), "a JobSet has the same pods");
}

#[test]
fn every_object_is_one_that_kubernetes_knows() {
    let mut seen = 0;
    for file in std::fs::read_dir(place("base")).unwrap() {
        for document in manifests::file(&file.unwrap().path()) {
            match document["kind"].as_str().unwrap() {
                "Kustomization" => continue,
                "Namespace" => drop(manifests::typed::<Namespace>(&document)),
                "ServiceAccount" => drop(manifests::typed::<ServiceAccount>(&document)),
                "PersistentVolumeClaim" => drop(manifests::typed::<PersistentVolumeClaim>(&document)),
                "NetworkPolicy" => drop(manifests::typed::<NetworkPolicy>(&document)),
                "Service" => drop(manifests::typed::<Service>(&document)),
                "Deployment" => drop(manifests::typed::<Deployment>(&document)),
                other => panic!("a {other}, which no test looks at"),
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 7);
}

#[test]
fn no_pod_may_more_than_the_restricted_profile_allows() {
    for pod in pods() {
        let of_pod = pod.security_context.clone().unwrap();
        assert_eq!((of_pod.run_as_non_root, of_pod.run_as_user), (Some(true), Some(10001)));
        assert_eq!(of_pod.fs_group, Some(10001), "else nobody could read the Secret");
        assert_eq!(of_pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert_eq!(
            (pod.automount_service_account_token, pod.enable_service_links),
            (Some(false), Some(false))
        );
        for container in &pod.containers {
            let own = container.security_context.clone().unwrap();
            assert_eq!(
                (own.allow_privilege_escalation, own.read_only_root_filesystem),
                (Some(false), Some(true))
            );
            assert_eq!(own.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
            let resources = container.resources.clone().unwrap();
            for amounts in [resources.requests, resources.limits] {
                let amounts = amounts.unwrap();
                assert!(amounts.contains_key("cpu") && amounts.contains_key("memory"));
            }
        }
    }
}

#[test]
fn every_flag_is_one_of_the_programs() {
    for pod in pods() {
        let container = &pod.containers[0];
        let command = container.command.clone().unwrap();
        let help = Command::new(program(&command[0])).args(&command[1..]).arg("--help").output();
        let help = Finished(help.unwrap()).success().stdout();
        for flag in flags(container).keys() {
            let known = help.split_whitespace().any(|word| word == flag);
            assert!(known, "{} has no {flag}", command.join(" "));
        }
    }
}

#[test]
fn ports_and_probes_are_those_of_the_flags() {
    let container = &coordinator().containers[0];
    let flags = flags(container);
    let ports: BTreeMap<String, i32> = container
        .ports
        .iter()
        .flatten()
        .map(|port| (port.name.clone().unwrap(), port.container_port))
        .collect();
    for (flag, name) in [("--listen", "jobs"), ("--web", "page"), ("--health", "health")] {
        assert_eq!(flags[flag], format!("0.0.0.0:{}", ports[name]), "{flag}");
    }
    for probe in [&container.startup_probe, &container.readiness_probe, &container.liveness_probe] {
        let get = probe.as_ref().unwrap().http_get.as_ref().unwrap();
        assert_eq!(
            (get.path.as_deref(), &get.port),
            (Some("/healthz"), &IntOrString::String("health".into()))
        );
        assert_eq!(get.scheme, None, "probes know no certificate");
    }
    let service: Service = manifests::one(&documents("base/service.yaml"), "Service");
    let name = service.metadata.name.unwrap();
    let of = service.spec.unwrap();
    for port in of.ports.unwrap() {
        let target = port.target_port.unwrap();
        assert_eq!(target, IntOrString::String(port.name.clone().unwrap()));
        assert_eq!(port.port, ports[&port.name.unwrap()]);
    }
    assert_eq!(flags["--advertise"], format!("https://{name}:{}", ports["jobs"]));
    assert_eq!(flags["--web-host"], name);
    let policy: NetworkPolicy = manifests::one(&documents("base/network-policy.yaml"), "NetworkPolicy");
    for rule in policy.spec.unwrap().ingress.unwrap() {
        for port in rule.ports.unwrap() {
            assert!(matches!(port.port, Some(IntOrString::String(name)) if ports.contains_key(&name)));
        }
    }
}

/// The words of a Containerfile's instructions, continued lines joined.
fn instructions(name: &str) -> Vec<Vec<String>> {
    let path = repository().join("deploy/docker").join(format!("{name}.Containerfile"));
    let text = std::fs::read_to_string(path).unwrap().replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn images_are_what_the_pods_run() {
    for (pod, name) in pods().iter().zip(["coordinator", "worker", "worker"]) {
        let all = instructions(name);
        let context = pod.security_context.clone().unwrap();
        let user = format!("{}:{}", context.run_as_user.unwrap(), context.run_as_group.unwrap());
        assert!(all.iter().any(|words| words[0] == "USER" && words[1] == user), "{name} runs as {user}");
        let command = &pod.containers[0].command.clone().unwrap()[0];
        let copied = |words: &Vec<String>| {
            words[0] == "COPY" && words.iter().any(|word| word.ends_with(&format!("/release/{command}")))
        };
        assert!(all.iter().any(|words| copied(words) && words.last().unwrap() == "/usr/local/bin/"));
        for words in &all {
            match words[0].as_str() {
                "FROM" => assert!(words[1].starts_with("${"), "base images are arguments: {words:?}"),
                "COPY" if !words[1].starts_with("--") => {
                    assert!(repository().join(&words[1]).exists(), "{name}: there is no {}", words[1]);
                }
                _ => {}
            }
        }
        for port in pod.containers[0].ports.iter().flatten() {
            let exposed = |words: &Vec<String>| words.contains(&port.container_port.to_string());
            assert!(all.iter().any(|words| words[0] == "EXPOSE" && exposed(words)));
        }
    }
}

#[test]
fn the_coordinator_has_time_to_stop_the_example() {
    let spec = documents("job/spec.yaml").remove(0);
    let patience = spec["fault"]["patience_s"].as_f64().unwrap();
    let deadlines = squad_proto::Deadlines::from_patience(std::time::Duration::from_secs_f64(patience));
    let given = coordinator().termination_grace_period_seconds.unwrap();
    assert!(deadlines.kill_after().as_secs() as i64 + 5 < given);
    let given = job().template.spec.unwrap().termination_grace_period_seconds.unwrap();
    assert!(deadlines.stop_grace.as_secs() as i64 * 2 + 5 < given);
}

#[test]
fn labels_lead_where_they_should() {
    let of = deployment().spec.unwrap();
    let labels = of.template.metadata.unwrap().labels.unwrap();
    assert_eq!(of.strategy.unwrap().type_.as_deref(), Some("Recreate"));
    let leads = |selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>| {
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    assert!(leads(&of.selector.match_labels.unwrap(), &labels));
    let service: Service = manifests::one(&documents("base/service.yaml"), "Service");
    assert!(leads(&service.spec.unwrap().selector.unwrap(), &labels));
    let policy: NetworkPolicy = manifests::one(&documents("base/network-policy.yaml"), "NetworkPolicy");
    let policy = policy.spec.unwrap();
    assert!(leads(&policy.pod_selector.unwrap().match_labels.unwrap(), &labels));
    let first = &policy.ingress.unwrap()[0].from.clone().unwrap()[0];
    let let_in = first.pod_selector.clone().unwrap().match_labels.unwrap();

    let rendered = documents("job/job.yaml");
    let worker = job().template.metadata.unwrap().labels.unwrap();
    assert!(leads(&let_in, &worker) && !leads(&let_in, &labels), "workers reach the coordinator");
    let headless: Service = manifests::one(&rendered, "Service");
    assert_eq!(headless.metadata.name, job().template.spec.unwrap().subdomain);
    assert!(leads(&headless.spec.unwrap().selector.unwrap(), &worker));
    let own: NetworkPolicy = manifests::one(&rendered, "NetworkPolicy");
    let own = own.spec.unwrap();
    let peer = own.ingress.unwrap()[0].from.clone().unwrap()[0].pod_selector.clone().unwrap();
    assert!(leads(&peer.match_labels.unwrap(), &worker), "workers of a job reach each other");
    assert!(leads(&own.pod_selector.unwrap().match_labels.unwrap(), &worker));
}

#[test]
fn what_is_read_and_written_is_mounted() {
    let claims: Vec<String> = documents("base/volumes.yaml")
        .iter()
        .map(|document| manifests::typed::<PersistentVolumeClaim>(document).metadata.name.unwrap())
        .collect();
    for pod in pods() {
        let container = &pod.containers[0];
        let mounts = container.volume_mounts.clone().unwrap();
        let volumes = pod.volumes.clone().unwrap();
        for mount in &mounts {
            let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
            if let Some(claim) = &volume.persistent_volume_claim {
                assert!(claims.contains(&claim.claim_name), "{}", claim.claim_name);
            }
            if let Some(secret) = &volume.secret {
                assert_eq!((secret.default_mode, mount.read_only), (Some(0o400), Some(true)));
            }
        }
        for flag in ["--root", "--state", "--tls-cert", "--tls-key", "--advertise-ca", "--ticket"] {
            if let Some(path) = flags(container).get(flag) {
                let within = mounts.iter().any(|mount| PathBuf::from(path).starts_with(&mount.mount_path));
                assert!(within, "{flag} {path}");
            }
        }
    }
    let job = job().template.spec.unwrap();
    let ticket = job.volumes.unwrap().into_iter().find_map(|volume| volume.secret).unwrap();
    let item = &ticket.items.unwrap()[0];
    let mount = job.containers[0].volume_mounts.clone().unwrap().swap_remove(0);
    assert_eq!(flags(&job.containers[0])["--ticket"], format!("{}/{}", mount.mount_path, item.path));
    let root = flags(&coordinator().containers[0])["--root"].clone();
    let data =
        job.containers[0].volume_mounts.clone().unwrap().into_iter().find(|mount| mount.name == "data");
    assert_eq!(data.unwrap().mount_path, root, "paths of the spec are the same for coordinator and workers");
}
