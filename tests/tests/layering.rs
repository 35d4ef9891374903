//! The arrows between crates, as cargo resolves them for each crate alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeSet;
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
