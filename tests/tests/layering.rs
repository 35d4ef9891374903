//! The arrows between crates, as `cargo metadata` sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Normal dependencies of every package of the tree, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = squad_tests::repository().join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|p| (p.id.clone(), p.name.to_string())).collect();
    metadata
        .resolve
        .unwrap()
        .nodes
        .into_iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| matches!(kind.kind, DependencyKind::Normal)));
            (names[&node.id].clone(), normal.map(|dep| names[&dep.pkg].clone()).collect())
        })
        .collect()
}

/// Everything that `package` needs, itself not included.
fn closure(all: &BTreeMap<String, BTreeSet<String>>, package: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while let Some(next) = open.pop() {
        for dependency in all.get(&next).into_iter().flatten() {
            if seen.insert(dependency.clone()) {
                open.push(dependency.clone());
            }
        }
    }
    seen
}

#[test]
fn nobody_reaches_what_is_not_theirs() {
    let all = dependencies();
    for (package, banned) in [
        ("squad-proto", &["tch", "torch-sys", "tokenizers", "cudarc", "rusqlite"][..]),
        (
            "squad-coordinator",
            &["tch", "torch-sys", "tokenizers", "cudarc", "squad-data", "squad-model", "squad-train"],
        ),
        ("squadctl", &["tch", "torch-sys", "cudarc", "squad-model", "squad-train"]),
        ("squad-collective", &["tch", "torch-sys", "tokio", "squad-data", "squad-model", "squad-proto"]),
        ("squad-data", &["tch", "torch-sys", "tokio", "ureq", "hyper", "squad-model", "squad-collective"]),
        ("squad-model", &["tokio", "squad-data", "squad-collective", "squad-proto"]),
        ("squad-train", &["tokio", "tonic", "clap", "indicatif"]),
        (
            "squad-fetch",
            &["tch", "torch-sys", "squad-data", "squad-model", "squad-collective", "squad-train"],
        ),
    ] {
        let reached = closure(&all, package);
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
    let reached = closure(&dependencies(), "squad-worker");
    assert!(reached.contains("torch-sys") && reached.contains("tonic"), "the worker has both");
}
