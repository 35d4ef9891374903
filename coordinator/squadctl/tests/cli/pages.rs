//! Pages of the documentation that the program itself writes.

use std::path::Path;

use crate::squadctl;

/// A page of `docs/`.
fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

#[test]
fn the_reference_of_specs_is_what_schema_prints() {
    let printed = squadctl(&["schema", "--markdown"]);
    assert_eq!(printed.code, 0);
    assert!(page("spec.md") == printed.stdout, "write it anew: squadctl schema --markdown > docs/spec.md");
}

#[test]
fn the_page_of_codes_is_what_explain_prints() {
    let printed = squadctl(&["explain", "all"]);
    assert_eq!(printed.code, 0);
    assert!(page("codes.md") == printed.stdout, "write it anew: squadctl explain all > docs/codes.md");
    let document = squadctl(&["explain", "all", "--output", "json"]).json();
    let codes = document.as_array().unwrap();
    assert!(codes.len() > 10 && codes.iter().all(|code| !code["title"].as_str().unwrap().is_empty()));
}
