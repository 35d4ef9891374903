//! The release archive: packed from the programs of the tests, unpacked elsewhere, and used from there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use squad_tests::{Finished, Job, program, repository};

/// A fresh environment: neither cargo's nor the tests' settings help to find anything.
fn fresh(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in
        ["LD_LIBRARY_PATH", "LIBTORCH", "SQUAD_WORKER", "SQUADCTL_SERVER", "SQUADCTL_TOKEN", "SQUADCTL_CA"]
    {
        command.env_remove(name);
    }
    command
}

fn libtorch() -> PathBuf {
    let place =
        std::env::var_os("LIBTORCH").map_or_else(|| repository().join("target/libtorch"), PathBuf::from);
    place.canonicalize().expect("libtorch: run scripts/setup.sh")
}

/// Packs what is built into a folder; the archive.
fn pack(out: &Path) -> PathBuf {
    // The script packs what lies in the target folder's profile; these tests' programs are there.
    assert!(program("squad-worker").ends_with("debug/squad-worker"), "tests are built in the dev profile");
    let script = Command::new("scripts/package.sh")
        .args(["--profile", "dev", "--no-build", "--out"])
        .arg(out)
        .current_dir(repository())
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output();
    Finished(script.unwrap()).success();
    let version = env!("CARGO_PKG_VERSION");
    out.join(format!("squadron-{version}-x86_64-linux.tar.gz"))
}

fn in_folder(folder: &Path, program: &str, arguments: &[&str]) -> Finished {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    Finished(output.unwrap()).success()
}

/// Times, owners and order in an archive are the same wherever and whenever it is made.
fn nothing_depends_on_when_and_where(archive: &Path) {
    let list = [
        "--list",
        "--verbose",
        "--numeric-owner",
        "--full-time",
        "--utc",
        "--file",
        archive.to_str().unwrap(),
    ];
    let listed = in_folder(Path::new("."), "tar", &list).stdout();
    let mut names = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[1], words[3], words[4]), ("0/0", "2023-11-14", "22:13:20"), "{line}");
        names.push(words[5].trim_end_matches('/').replace('/', "\0"));
    }
    assert!(names.len() > 100 && names.is_sorted(), "{names:?}");
    // A compressed stream has the time in its header, where it is told to.
    assert_eq!(&fs::read(archive).unwrap()[4..8], &[0; 4]);
}

#[test]
fn an_archive_is_the_same_each_time_and_is_used_elsewhere() {
    let out = tempfile::tempdir().unwrap();
    let archive = pack(out.path());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2, "nothing else is left behind");
    nothing_depends_on_when_and_where(&archive);
    if std::env::var_os("SQUAD_PACKAGE_AGAIN").is_some() {
        let again = tempfile::tempdir().unwrap();
        assert!(fs::read(&archive).unwrap() == fs::read(pack(again.path())).unwrap(), "another archive");
    }
    in_folder(out.path(), "sha256sum", &["--check", "--strict", "SHA256SUMS"]);
    let elsewhere = tempfile::tempdir().unwrap();
    in_folder(elsewhere.path(), "tar", &["--extract", "--file", archive.to_str().unwrap()]);
    let root =
        elsewhere.path().join(archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz"));

    for file in [
        "README.md",
        "LICENSE",
        "NOTICE",
        "docs/start.md",
        "examples/quickstart/job.yaml",
        "share/squadron/get_libtorch.sh",
        "share/man/man1/squadctl-run.1",
        "share/man/man1/squad-coordinator-serve.1",
        "share/man/man1/squad-worker-join.1",
        "share/bash-completion/completions/squadctl",
        "share/zsh/site-functions/_squadctl",
        "share/fish/vendor_completions.d/squadctl.fish",
    ] {
        assert!(fs::metadata(root.join(file)).is_ok_and(|file| file.len() > 0), "{file}");
    }
    let licences = fs::read_to_string(root.join("THIRD-PARTY.txt")).unwrap();
    for text in ["\nclap 4.", "\ntch 0.", "\ntokio 1.", "Permission is hereby granted, free of charge"] {
        assert!(licences.contains(text), "{text}");
    }
    assert!(!licences.contains("\nproptest "), "what only tests use is not built in");
    let help = Command::new(root.join("share/squadron/get_libtorch.sh")).arg("--help").output();
    Finished(help.unwrap()).success();

    programs_are_used(&root);
}

fn programs_are_used(root: &Path) {
    let (squadctl, worker) = (root.join("bin/squadctl"), root.join("bin/squad-worker"));
    let call =
        |program: &Path, arguments: &[&str]| Finished(fresh(program).args(arguments).output().unwrap());
    let version = call(&squadctl, &["--version"]).success().stdout();
    assert_eq!(version.trim(), concat!("squadctl ", env!("CARGO_PKG_VERSION")));
    call(&root.join("bin/squad-coordinator"), &["--version"]).success();

    // Without libtorch the worker says where it comes from: the folder of the machine that built it is forgotten.
    let lost = call(&worker, &["probe"]);
    assert_eq!(lost.code(), 127, "{}{}", lost.stdout(), lost.stderr());
    assert!(lost.stderr().contains("share/squadron/get_libtorch.sh brings it"), "{}", lost.stderr());
    let wrong = Finished(fresh(&worker).arg("probe").env("LIBTORCH", root).output().unwrap());
    assert!(wrong.code() == 127 && wrong.stderr().contains("no lib/libtorch_cpu.so"), "{}", wrong.stderr());

    // LIBTORCH names it: a whole job, and what doctor says.
    let job = Job::of_quick_steps(4);
    let run = fresh(&squadctl)
        .args(["run", "job.yaml"])
        .env("LIBTORCH", libtorch())
        .current_dir(job.path(""))
        .output();
    Finished(run.unwrap()).success();
    assert_eq!(job.json("out/results.json")["train"]["world_size"], 2);
    let doctor = fresh(&squadctl).args(["doctor", "--output", "json"]).env("LIBTORCH", libtorch()).output();
    let doctor = Finished(doctor.unwrap()).json().to_string();
    let file = libtorch().join("lib/libtorch_cpu.so").display().to_string();
    assert!(doctor.contains(&file) && doctor.contains(&worker.display().to_string()), "{doctor}");

    // Beside bin/ it needs no name.
    symlink(libtorch(), root.join("libtorch")).unwrap();
    let probe: Value = call(&worker, &["probe", "--output", "json"]).success().json();
    assert!(
        probe["libtorch"]["file"].as_str().is_some_and(|file| file.ends_with("libtorch_cpu.so")),
        "{probe}"
    );
    // Rank 0 of a launcher's finds squadctl beside itself.
    assert!(root.join("lib/squadron/squadctl").canonicalize().unwrap().ends_with("bin/squadctl"));
}

#[test]
fn the_devcontainer_names_what_is_there() {
    let folder = repository().join(".devcontainer");
    let text = fs::read_to_string(folder.join("devcontainer.json")).unwrap();
    let container: Value = serde_json::from_str(&text).unwrap();
    let file = fs::read_to_string(folder.join(container["build"]["dockerfile"].as_str().unwrap())).unwrap();
    assert!(folder.join(container["build"]["context"].as_str().unwrap()).join("Cargo.toml").is_file());
    let user = container["remoteUser"].as_str().unwrap();
    assert!(file.contains(&format!("USER {user}\n")) && file.contains("useradd"), "{user}");
    for script in container["postCreateCommand"].as_str().unwrap().split(" && ") {
        assert!(repository().join(script).is_file(), "{script}");
    }
    // The same toolchain as the images are built with.
    let image = |name: &str| {
        let text = fs::read_to_string(repository().join("deploy/docker").join(name)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("ARG BUILD_IMAGE=").map(str::to_owned)).unwrap()
    };
    assert_eq!(image("development.Containerfile"), image("worker.Containerfile"));
}
