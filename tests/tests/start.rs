//! The commands of `docs/start.md`, run one after the other as a reader would, with a tiny model in the place of the
//! small one, and fewer questions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use squad_tests::{Finished, program, repository, written};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The first of the questions that the page trains on.
fn few_questions(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, articles) in [("train-v1.1.json", 4), ("dev-v1.1.json", 2)] {
        let text = fs::read_to_string(repository().join("examples/quickstart").join(name)).unwrap();
        let mut data: Value = serde_json::from_str(&text).unwrap();
        data["data"].as_array_mut().unwrap().truncate(articles);
        fs::write(to.join(name), data.to_string()).unwrap();
    }
}

/// The page's blocks that are to be run, as one script that ends with the first command that fails. What is started
/// in the background is awaited, and ends with the script.
fn script(page: &str) -> String {
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n".to_owned();
    let (blocks, _) = written::blocks(page);
    for block in blocks.iter().filter(|block| block.language == "sh") {
        for line in block.text.lines() {
            writeln!(script, "{line}").unwrap();
            if line.ends_with('&') {
                script += "for _ in $(seq 600); do (exec 3<>/dev/tcp/$HOST/7311) 2>/dev/null && break; sleep 0.1; done\n";
            }
        }
    }
    script
}

#[test]
fn the_five_minutes_are_what_the_page_says() {
    let page = fs::read_to_string(repository().join("docs/start.md")).unwrap();
    let script = script(&page);
    for command in
        ["squadctl run", "predict", "evaluate", "squad-coordinator serve", "submit", "list", "logs"]
    {
        assert!(script.contains(command), "{command} is in no block that is run: {script}");
    }
    let folder = tempfile::tempdir().unwrap();
    few_questions(&folder.path().join("examples/quickstart"));
    copy(&repository().join("tests/data/zoo/electra"), &folder.path().join("models/all-MiniLM-L6-v2"));

    // Addresses of its own on loopback, so that the page's ports are free whatever else runs.
    let pid = std::process::id();
    let host = format!("127.{}.{}.{}", 1 + pid % 250, 1 + pid / 250 % 250, 1 + pid / 62_500 % 250);
    let programs = program("squadctl").parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let run = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("HOST", &host)
        .env("SQUAD_LISTEN", format!("{host}:7311"))
        .env("SQUADCTL_SERVER", format!("http://{host}:7311"))
        .env_remove("SQUADCTL_TOKEN")
        .env_remove("SQUADCTL_TOKEN_FILE")
        .env_remove("SQUADCTL_CA")
        .env_remove("SQUAD_WORKER")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let run = Finished(run);
    let said = format!("{}\n{}", run.stdout(), run.stderr());
    assert_eq!(run.code(), 0, "{said}");

    let results = |name: &str| -> Value {
        let file = folder.path().join("out").join(name).join("results.json");
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    };
    let (first, second) = (results("first"), results("second"));
    assert_eq!(first["train"]["world_size"], 2);
    assert_eq!(first["weights_sha256"], second["weights_sha256"], "a daemon computes the same");
    // What evaluate printed are the figures that the run has.
    assert!(run.stdout().contains(&format!("\"f1\": {}", first["f1"])), "{said}");
    // The list and the job.
    assert!(run.stdout().matches("succeeded").count() >= 2, "{said}");
}
