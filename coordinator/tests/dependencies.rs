//! Manifests name what the code uses, and nothing else: each name costs time to build and somebody's trust.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The keys of a manifest's sections whose heading ends so: `serde.workspace = true` has the key `serde`.
fn keys(manifest: &str, heading: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with(heading);
        } else if inside && line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let end = line.find(['.', ' ', '=']).unwrap();
            found.insert(line[..end].to_owned());
        }
    }
    found
}

/// Every word of the Rust files in a folder and those below it.
fn words(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            words(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&path);
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let split = |line: &'_ str| -> Vec<String> {
                line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
            };
            found.extend(code.flat_map(split));
        }
    }
}

#[test]
fn every_dependency_is_used() {
    // What tonic generates uses these two.
    let generated = ["prost", "tonic-prost"];
    for package in ["proto", "coordinator", "coordinator/squadctl"] {
        let folder = repository().join(package);
        let mut used = BTreeSet::new();
        for part in ["src", "tests", "examples"] {
            words(&folder.join(part), &mut used);
        }
        if folder.join("build.rs").exists() {
            used.extend(["protox", "tonic_prost_build"].map(str::to_owned));
        }
        let named = keys(&read(&folder.join("Cargo.toml")), "dependencies]");
        assert!(named.contains("serde_json"), "{package}: {named:?}");
        let idle: Vec<_> = named
            .iter()
            .filter(|name| !generated.contains(&name.as_str()) && !used.contains(&name.replace('-', "_")))
            .collect();
        assert!(idle.is_empty(), "{package} names {idle:?} and uses them nowhere");
    }
}

#[test]
fn every_row_of_the_workspaces_table_is_used() {
    let root = read(&repository().join("Cargo.toml"));
    let members: Vec<&str> = root
        .lines()
        .skip_while(|line| !line.starts_with("members"))
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","))
        .collect();
    assert!(members.contains(&"coordinator/squadctl"), "{members:?}");
    let named: BTreeSet<String> = members
        .iter()
        .flat_map(|member| keys(&read(&repository().join(member).join("Cargo.toml")), "dependencies]"))
        .collect();
    let rows = keys(&root, "[workspace.dependencies]");
    // Our own crates are built as members, whether another uses them or not.
    let idle: Vec<_> = rows.difference(&named).filter(|name| !name.starts_with("squad-")).collect();
    assert!(rows.len() > 10 && idle.is_empty(), "no crate uses {idle:?}");
}
