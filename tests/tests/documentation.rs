//! What the pages refer to is there: files that they link, and tests that are to prove a line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};

use squad_tests::repository;

/// All pages for people, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let root = repository();
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(|page| root.join(page))
        .into();
    let docs = fs::read_dir(root.join("docs")).expect("docs");
    pages.extend(
        docs.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")),
    );
    pages.into_iter().map(|page| (page.clone(), fs::read_to_string(page).unwrap())).collect()
}

/// Targets of a page's links to files of the project, without the part of the page that they point at.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(|target| target.split('#').next().unwrap_or(target)).filter(|target| {
        !target.is_empty()
            && !target.contains("://")
            && !target.starts_with("mailto:")
            && !target.contains(char::is_whitespace)
    })
}

/// What stands between backticks and looks like a test: `tests/tests/run.rs::name`.
fn proofs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|code| code.split_once("::")).filter(|(file, _)| file.ends_with(".rs"))
}

fn has_test(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(number, line)| {
        line.contains(&format!("fn {name}("))
            && lines[..number].iter().rev().take(3).any(|line| line.contains("test"))
    })
}

#[test]
fn every_link_leads_to_a_file() {
    let mut seen = 0;
    for (page, text) in pages() {
        for target in links(&text) {
            let file = page.parent().unwrap().join(target);
            assert!(file.exists(), "{} links {target}, which is not there", page.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} links were found");
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut seen = 0;
    for (page, text) in pages() {
        for (file, name) in proofs(&text) {
            let path = repository().join(file);
            assert!(has_test(&path, name), "{} names {file}::{name}, which is no test", page.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} tests were found");
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let this = repository().join("tests/tests/documentation.rs");
    assert!(has_test(&this, "every_link_leads_to_a_file"));
    assert!(
        !has_test(&this, "has_test") && !has_test(&this, "nowhere") && !has_test(Path::new("nowhere"), "a")
    );
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](g/h)").collect::<Vec<_>>(), ["b.md", "g/h"]);
}
