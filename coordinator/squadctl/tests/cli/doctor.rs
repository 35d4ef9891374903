//! The examination of a machine.

use crate::{program, squadctl, squadctl_in};

/// A stand-in for squad-worker that only tells about itself.
fn worker(folder: &std::path::Path, version: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("worker.sh");
    let probe = serde_json::json!({
        "version": version, "cpu": {"mkl_kernels": "AVX-512"},
        "libtorch": {"built_for": "2.11.0", "file": "/lib/libtorch_cpu.so"},
        "cuda": {"usable": false, "problem": "no NVIDIA driver", "driver": null, "libraries": null, "gpus": []},
        "nccl": {"version": null, "file": null, "problem": "no libnccl.so.2"},
    });
    std::fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{probe}\nEND\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Calls doctor in a folder with such a worker.
fn doctor(folder: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let mut command = program(&[&["doctor"], arguments].concat());
    command.current_dir(folder).env("SQUAD_WORKER", worker(folder, env!("CARGO_PKG_VERSION")));
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn check<'a>(document: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let checks = document["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {document}"))
}

#[test]
fn a_machine_is_examined_and_the_deadlines_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = doctor(folder.path(), &["--patience", "120"]);
    assert_eq!(code, 0, "{text}");
    for words in
        ["ok      worker program", "libtorch_cpu.so", "cores", "clock", "peers' address", "patience of 120 s"]
    {
        assert!(text.contains(words), "{words} not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text:?}");
    let (code, text) = doctor(folder.path(), &["--patience", "120", "--output", "json", "-n", "2"]);
    assert_eq!(code, 0, "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&document["ok"], &document["workers"]), (&true.into(), &2.into()));
    let silence =
        document["deadlines"].as_array().unwrap().iter().find(|wait| wait["name"] == "silence").unwrap();
    assert_eq!(silence["seconds"], 60.0);
    assert_eq!(check(&document, "GPUs")["finding"], "ok");
}

#[test]
fn what_a_job_lacks_is_bad_and_has_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "{name: a, model: google_albert_base_v2, data: {train: train.json}, output_dir: out, \
                resources: {device: cuda}, fault: {patience_s: 30}}";
    std::fs::write(folder.path().join("job.yaml"), spec).unwrap();
    let (code, text) = doctor(folder.path(), &["job.yaml", "--output", "json"]);
    assert_eq!(code, 1, "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let files = check(&document, "job spec");
    assert_eq!(files["finding"], "bad");
    assert!(files["text"].as_str().unwrap().contains("train.json") && files["remedy"].is_string(), "{files}");
    assert_eq!(document["patience_s"], 30.0);

    std::fs::write(folder.path().join("train.json"), r#"{"version": "1.1", "data": []}"#).unwrap();
    let (code, text) = doctor(folder.path(), &["job.yaml"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("BAD     GPUs            no NVIDIA driver\n"), "{text}");
    assert!(text.contains("-> squad-worker probe tells all"), "{text}");
    assert!(text.contains("ok      output_dir"), "{text}");
}

#[test]
fn a_worker_program_that_does_not_run_is_bad() {
    let folder = tempfile::tempdir().unwrap();
    let path = worker(folder.path(), "0.0.1");
    let examine = || program(&["doctor"]).env("SQUAD_WORKER", &path).output().unwrap();
    let other = examine();
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stdout).contains("is of version 0.0.1"));
    std::fs::write(
        &path,
        "#!/bin/sh\necho 'libtorch_cpu.so: cannot open shared object file' >&2\nexit 127\n",
    )
    .unwrap();
    let broken = String::from_utf8(examine().stdout).unwrap();
    assert!(broken.contains("does not run: libtorch_cpu.so: cannot open"), "{broken}");
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(squadctl(&["doctor", "--patience", "0"]).code, 2);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(squadctl_in(folder.path(), &["doctor", "none.yaml"]).code, 2);
}
