//! `docs/flags.md` and `docs/coming.md` against the job spec that they talk of.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use squad_proto::spec::validate;

const PAGE: &str = include_str!("../../docs/flags.md");

/// The page for those who come from other programs.
const COMING: &str = include_str!("../../docs/coming.md");

/// The cells of the page's rows about flags.
fn rows() -> Vec<Vec<&'static str>> {
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    PAGE.lines().filter(|line| line.starts_with("| --")).map(cells).collect()
}

/// A spec with every field that there is.
fn whole_spec() -> Value {
    let spec = json!({"name": "a", "model": "m", "data": {"dev": "d"}, "output_dir": "o"});
    serde_json::to_value(validate(&spec, "a test").unwrap().get()).unwrap()
}

/// What stands between backticks and looks like a field of a section: `train.epochs`.
fn fields(text: &str) -> impl Iterator<Item = &str> {
    let sections = ["data.", "train.", "eval.", "resources.", "comm.", "fault."];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.map(|code| code.split(':').next().unwrap()).filter(move |code| {
        sections.iter().any(|section| code.starts_with(section)) && !code.contains([' ', '/'])
    })
}

#[test]
fn every_flag_has_one_row() {
    let flags: BTreeSet<&str> = rows().iter().map(|row| row[0]).collect();
    assert_eq!((flags.len(), rows().len()), (43, 43));
    assert!(rows().iter().all(|row| row.len() == 3 && !row[1].is_empty()));
}

#[test]
fn every_field_that_the_pages_name_exists() {
    let spec = whole_spec();
    for (page, least) in [(PAGE, 40), (COMING, 20)] {
        let mut named = BTreeSet::new();
        for field in page.lines().flat_map(fields) {
            let pointer = format!("/{}", field.replace('.', "/"));
            assert!(spec.pointer(&pointer).is_some(), "there is no field {field}");
            named.insert(field);
        }
        assert!(named.len() > least, "the page names {} fields: {named:?}", named.len());
    }
}

#[test]
fn what_the_page_calls_refused_is_refused() {
    for (field, value) in [
        ("train.max_grad_norm", json!(-1)),
        ("train.optimizer", json!("sgd")),
        ("data.doc_stride", json!(509)),
        ("eval.every", json!(100)),
    ] {
        assert!(PAGE.contains(&format!("`{field}`")), "{field}");
        let mut spec = whole_spec();
        *spec.pointer_mut(&format!("/{}", field.replace('.', "/"))).unwrap() = value.clone();
        let refusal = validate(&spec, "a test").unwrap_err().to_string();
        assert!(refusal.contains(field), "{field}: {value}: {refusal}");
    }
}
