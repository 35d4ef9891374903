//! The arrows between crates, as cargo resolves them for each crate alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything that `package` needs to be used, by name, directly or through others. `cargo tree` resolves the
/// features of this package alone; those of the whole workspace would blur the picture.
fn reached(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            package,
        ])
        .current_dir(squad_tests::repository())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    text.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn nobody_reaches_what_is_not_theirs() {
    for (package, banned) in [
        ("squad-proto", &["tch", "torch-sys", "tokenizers", "cudarc", "rusqlite"][..]),
        (
            "squad-coordinator",
            &["tch", "torch-sys", "tokenizers", "cudarc", "squad-data", "squad-model", "squad-train"],
        ),
        ("squadctl", &["tch", "torch-sys", "cudarc", "squad-model", "squad-train"]),
        ("squad-collective", &["tch", "torch-sys", "tokio", "squad-data", "squad-model", "squad-proto"]),
        ("squad-data", &["tch", "torch-sys", "tokio", "ureq", "hyper", "squad-model", "squad-collective"]),
        (
            "squad-cuda",
            &["tch", "torch-sys", "tokio", "squad-proto", "squad-collective", "squad-model", "squad-train"],
        ),
        (
            "squad-attention",
            &[
                "tokio",
                "squad-proto",
                "squad-cuda",
                "squad-data",
                "squad-fetch",
                "squad-weights",
                "squad-model",
                "squad-collective",
                "squad-train",
            ],
        ),
        ("squad-model", &["tokio", "squad-data", "squad-collective", "squad-proto"]),
        ("squad-train", &["tokio", "tonic", "clap", "indicatif"]),
        (
            "squad-fetch",
            &["tch", "torch-sys", "squad-data", "squad-model", "squad-collective", "squad-train"],
        ),
        (
            "squad-weights",
            &[
                "tch",
                "torch-sys",
                "tokio",
                "squad-proto",
                "squad-data",
                "squad-fetch",
                "squad-model",
                "squad-collective",
                "squad-train",
                "squad-coordinator",
            ],
        ),
    ] {
        let reached = reached(package);
        for name in banned {
            assert!(
                !reached.contains(*name),
                "{package} must not depend on {name}, directly or through others"
            );
        }
    }
}

#[test]
fn the_rule_can_fail() {
    let reached = reached("squad-worker");
    assert!(reached.contains("torch-sys") && reached.contains("tonic"), "the worker has both");
}

/// Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.')
                && !["target", "tests", "examples", "benches", "simulation"].contains(&name)
            {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_wait_comes_from_patience_or_says_why_not() {
    let mut found = Vec::new();
    for folder in ["proto/src", "coordinator", "worker"] {
        sources(&squad_tests::repository().join(folder), &mut found);
    }
    assert!(found.len() > 100);
    let constant = |line: &str| {
        ["from_secs(", "from_millis(", "from_micros("].iter().any(|unit| {
            let number = line.split(&format!("Duration::{unit}")).nth(1);
            number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    for path in found.iter().filter(|path| !path.ends_with("deadlines.rs") && !path.ends_with("waits.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap();
        let lines: Vec<&str> = program.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| constant(line)) {
            let reason = lines[number.saturating_sub(6)..=number].iter().any(|line| line.contains("Fixed"));
            assert!(
                reason,
                "{}:{}: a wait belongs into proto/src/deadlines.rs; one that no patience rules says `Fixed: why`",
                path.display(),
                number + 1
            );
        }
    }
}
