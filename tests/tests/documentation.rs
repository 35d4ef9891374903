//! What the pages refer to is there: files that they link, tests that are to prove a line, scripts and packages of
//! their commands; and all pages are in the book.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};

use squad_tests::{repository, written};

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

/// What a command names of this project and is not there: files, packages, test programs.
fn absent(words: &[String]) -> Vec<String> {
    let mut absent = Vec::new();
    for word in words {
        let path = word.trim_start_matches("./").trim_start_matches("../");
        let ours =
            ["scripts/", "deploy/", "examples/", "tests/", "fuzz/", "worker/", "coordinator/", "proto/"];
        if ours.iter().any(|folder| path.starts_with(folder)) && !repository().join(path).exists() {
            absent.push(word.clone());
        }
    }
    if words[0] == "cargo" {
        let (packages, programs) = crates();
        for pair in words.windows(2) {
            let known = match pair[0].as_str() {
                "-p" | "--package" => &packages,
                "--test" => &programs,
                _ => continue,
            };
            if !known.contains(&pair[1]) {
                absent.push(pair.join(" "));
            }
        }
    }
    absent
}

/// Packages of the workspace, and their test programs.
fn crates() -> (Vec<String>, Vec<String>) {
    let (mut packages, mut programs) = (Vec::new(), Vec::new());
    let root = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let members =
        root.lines().skip_while(|line| !line.starts_with("members")).take_while(|line| *line != "]");
    for member in members.filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\",")) {
        let folder = repository().join(member);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        packages.extend(
            manifest
                .lines()
                .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
                .map(str::to_owned),
        );
        let tests = fs::read_dir(folder.join("tests")).into_iter().flatten().flatten();
        programs.extend(tests.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())));
    }
    (packages, programs)
}

#[test]
fn what_commands_name_of_this_project_is_there() {
    let commands = written::commands(&repository());
    let blocks = commands.iter().filter(|command| command.whole);
    let mut seen = 0;
    for command in blocks {
        let absent = absent(&command.words);
        assert!(absent.is_empty(), "{}:{}: there is no {absent:?}", command.page.display(), command.line);
        seen += 1;
    }
    assert!(seen > 80, "only {seen} commands were found");
}

#[test]
fn a_script_or_package_that_is_not_there_is_noticed() {
    let words = |line: &str| written::split(line).remove(0).1;
    assert_eq!(absent(&words("./scripts/nothing.sh --help")), ["./scripts/nothing.sh"]);
    let line = "cargo nextest run -p squad-tests -p squad-nothing --test run --test nothing";
    assert_eq!(absent(&words(line)), ["-p squad-nothing", "--test nothing"]);
    assert!(absent(&words("./scripts/test.sh")).is_empty());
}

#[test]
fn every_page_is_in_the_book_once() {
    let docs = repository().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let mut listed: Vec<&str> = links(&summary).collect();
    listed.sort_unstable();
    let mut pages: Vec<String> = fs::read_dir(&docs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    pages.sort();
    assert_eq!(listed, pages);
    // What lies outside of docs/ is not in the book, so a page cannot link it.
    for page in &pages {
        let text = fs::read_to_string(docs.join(page)).unwrap();
        assert!(links(&text).all(|target| !target.starts_with("..")), "{page} links out of the book");
    }
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
