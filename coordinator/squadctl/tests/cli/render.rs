//! Manifests for Kubernetes.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Call, squadctl_in};

const SPEC: &str = "name: squad-2\nmodel: m\ndata: {train: t.json}\nresources: {workers: 8}\nfault: {patience_s: 90, max_restarts: 5}\noutput_dir: out\n";

fn call(folder: &Path, arguments: &[&str]) -> Call {
    std::fs::write(folder.join("job.yaml"), SPEC).unwrap();
    squadctl_in(
        folder,
        &[&["render", "kubernetes", "job.yaml", "--image", "squad-worker:1"], arguments].concat(),
    )
}

/// The objects by kind.
fn rendered(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let call = call(folder.path(), &[&["--output", "json"], arguments].concat());
    assert_eq!(call.code, 0, "{}", call.stderr);
    let list = call.json();
    assert_eq!((&list["apiVersion"], &list["kind"]), (&json!("v1"), &json!("List")));
    let by_kind = list["items"].as_array().unwrap().iter();
    by_kind.map(|object| (object["kind"].as_str().unwrap().to_owned(), object.clone())).collect()
}

fn refused(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let call = call(folder.path(), arguments);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{arguments:?}: {}", call.stderr);
    call.stderr
}

fn container(job: &Value) -> &Value {
    &job["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn pods_are_worked_out_from_the_spec_and_the_flags() {
    let job = &rendered(&["--slots", "4", "--threads", "3", "--memory", "6Gi"])["Job"];
    let of = &job["spec"];
    assert_eq!((&of["completions"], &of["parallelism"]), (&json!(2), &json!(2)));
    assert_eq!((&of["completionMode"], &of["backoffLimit"]), (&json!("Indexed"), &json!(9)));
    assert_eq!(of["template"]["spec"]["terminationGracePeriodSeconds"], 105, "longer than the patience");
    assert_eq!(container(job)["command"], json!(["squad-worker", "join"]));
    let args =
        ["--ticket", "/etc/squad/ticket", "--world", "8", "--slots", "4", "--threads", "3", "--wait", "600"];
    assert_eq!(container(job)["args"], json!(args));
    let amounts = json!({"cpu": "12", "memory": "24Gi"});
    assert_eq!(container(job)["resources"], json!({"requests": amounts, "limits": amounts}));
    assert_eq!(job["metadata"]["namespace"], "squad");
    let volumes = &of["template"]["spec"]["volumes"];
    assert_eq!(volumes[0]["secret"]["secretName"], "squad-2-ticket");
    assert_eq!(volumes[1]["persistentVolumeClaim"]["claimName"], "squad-data");

    let other =
        &rendered(&["-np", "2", "--set", "fault.max_restarts=0", "--name", "b", "--claim", "c"])["Job"];
    assert_eq!((&other["spec"]["completions"], &other["spec"]["backoffLimit"]), (&json!(2), &json!(4)));
    assert_eq!(other["metadata"]["name"], "b");
    assert_eq!(other["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"], "b-ticket");
}

#[test]
fn each_worker_gets_a_gpu_where_the_job_runs_on_gpus() {
    for arguments in [&["--gpu"][..], &["--set", "resources.device=cuda"]] {
        let job = &rendered(&[arguments, &["--slots", "4"]].concat())["Job"];
        for of in ["requests", "limits"] {
            assert_eq!(container(job)["resources"][of]["nvidia.com/gpu"], "4");
        }
        assert_eq!(job["spec"]["template"]["spec"]["tolerations"][0]["key"], "nvidia.com/gpu");
    }
    let named = &rendered(&["--gpu", "--gpu-resource", "example.com/gpu"])["Job"];
    assert_eq!(container(named)["resources"]["limits"]["example.com/gpu"], "1");
    // A job that only evaluates has pods too.
    let evaluation = rendered(&["--set", "data.train=null", "--set", "data.dev=d.json"]);
    assert_eq!(evaluation["Job"]["spec"]["completions"], 8);
    let without = &rendered(&["--set", "resources.device=cpu"])["Job"];
    assert_eq!(container(without)["resources"]["limits"].as_object().unwrap().len(), 2);
    assert!(refused(&["--gpu", "--set", "resources.device=cpu"]).contains("resources.device: cpu"));
    let beyond = refused(&["--gpu", "--slots", "2", "--set", "resources.gpus=[0,2]"]);
    assert!(beyond.contains("GPU 2") && beyond.contains("GPUs 0 to 1"), "{beyond}");
}

#[test]
fn a_job_set_has_one_such_job_and_makes_its_own_service() {
    let objects = rendered(&["--kind", "jobset"]);
    assert_eq!(objects.as_object().unwrap().keys().collect::<Vec<_>>(), ["NetworkPolicy", "JobSet"]);
    let of = &objects["JobSet"]["spec"];
    assert_eq!(of["network"], json!({"enableDNSHostnames": true, "subdomain": "squad-2"}));
    assert_eq!(of["failurePolicy"], json!({"maxRestarts": 0}), "restarts are the coordinator's");
    assert_eq!(of["replicatedJobs"][0]["template"]["spec"]["completions"], 8);
}

#[test]
fn what_cannot_be_placed_is_refused_in_a_sentence() {
    assert!(refused(&["--slots", "3"]).contains("8 workers do not fill pods of 3"));
    assert!(refused(&["--name", "Squad"]).contains("\"Squad\""));
    assert!(refused(&["--set", "name=2nd"]).contains("say --name NAME"));
    assert!(refused(&["--memory", "8 gigabytes"]).contains("as in 8Gi"));
    assert!(
        refused(&["--memory", "9999999999999999999Ti", "--slots", "8"]).contains("more than any machine has")
    );
    for mount in ["data", "/", "/a/../b"] {
        assert!(refused(&["--mount", mount]).contains("--mount"), "{mount}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("job.yaml"), SPEC).unwrap();
    let image =
        |image: &str| squadctl_in(folder.path(), &["render", "kubernetes", "job.yaml", "--image", image]);
    for bad in ["", "a b", "a\n  command: [sh]"] {
        assert_eq!(image(bad).code, 2, "{bad:?}");
    }
    assert_eq!(image("a").code, 0);
}

#[test]
fn no_value_changes_the_shape_of_a_manifest() {
    // All of these are something else in YAML when they stand there as they are.
    for image in ["1.5", "null", "yes", "{a:b}", "&a", "*a", "#a", "a:#b", "'a'", "\"a", "%a", "@a"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("job.yaml"), SPEC).unwrap();
        let call = squadctl_in(folder.path(), &["render", "kubernetes", "job.yaml", "--image", image]);
        assert_eq!(call.code, 0, "{}", call.stderr);
        let job = call.stdout.split("---\n").last().unwrap();
        let job: Value = serde_norway::from_str(job).unwrap();
        assert_eq!(container(&job)["image"], json!(image));
    }
}

#[test]
fn a_file_gets_what_stdout_would() {
    let folder = tempfile::tempdir().unwrap();
    let stdout = call(folder.path(), &[]).stdout;
    assert_eq!(stdout.matches("---\n").count(), 2, "{stdout}");
    let to_file = call(folder.path(), &["--file", "pods.yaml"]);
    assert_eq!((to_file.code, to_file.stdout.as_str()), (0, ""), "{}", to_file.stderr);
    assert_eq!(std::fs::read_to_string(folder.path().join("pods.yaml")).unwrap(), stdout);
    let nowhere = call(folder.path(), &["--file", "none/pods.yaml"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("none/pods.yaml"), "{}", nowhere.stderr);
}
