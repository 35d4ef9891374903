//! The reference of job specs and of failure codes, as pages: from the schema and from the codes' own pages.

use serde_json::Value;
use squad_proto::FailureCode;

/// What stands above the reference of job specs.
const SPEC: &str = "\
# Job specs, field by field

A job is a YAML or JSON file. This page is written from the JSON Schema of the format by `squadctl schema --markdown`; a test
fails where it is not what that prints. Fields without a default must be given. A field that is unknown is refused, and so
is a value outside of its range, all of a spec's problems at once. Any field can be set for one run: `squadctl run job.yaml
--set train.epochs=1`. [training.md](training.md) has what the fields of `train` and `data` do to the numbers.
";

/// What stands above the failure codes.
const CODES: &str = "\
# Failure codes

What a job that failed says first. This page is written by `squadctl explain all`; a test fails where it is not what that
prints. `squadctl explain CODE` prints one of them.
";

/// A schema of job specs as a page of tables, a section for each part of the spec.
pub(crate) fn spec_page(schema: &Value) -> String {
    let mut page = SPEC.to_owned();
    let (own, sections): (Vec<_>, Vec<_>) =
        properties(schema).into_iter().partition(|(_, field)| section_of(schema, field).is_none());
    page += &table("## The job itself", "", schema, &own);
    for (name, field) in sections {
        let Some(section) = section_of(schema, field) else { continue };
        let about = one_line(&field["description"]);
        page += &table(&format!("## {name}"), &about, schema, &properties(section));
    }
    page
}

/// All failure codes with their pages, one after another.
pub(crate) fn codes_page() -> String {
    let mut page = CODES.to_owned();
    for code in FailureCode::ALL {
        page.push('\n');
        for line in code.page().lines() {
            // Headings go one level down: the page has its own.
            page += if line.starts_with('#') { "#" } else { "" };
            page += line;
            page.push('\n');
        }
    }
    page
}

/// The fields of an object, in their order.
fn properties(object: &Value) -> Vec<(&String, &Value)> {
    object["properties"].as_object().into_iter().flatten().collect()
}

/// What a field's `$ref` points at.
fn referred<'a>(schema: &'a Value, field: &Value) -> Option<&'a Value> {
    let name = field["$ref"].as_str()?.strip_prefix("#/$defs/")?;
    schema["$defs"].get(name)
}

/// The object that a field holds, if it holds one.
fn section_of<'a>(schema: &'a Value, field: &Value) -> Option<&'a Value> {
    referred(schema, field).filter(|object| object["properties"].is_object())
}

fn table(heading: &str, about: &str, schema: &Value, fields: &[(&String, &Value)]) -> String {
    let mut text = format!("\n{heading}\n\n");
    if !about.is_empty() {
        text += &format!("{about}\n\n");
    }
    text += "| field | takes | default | |\n|---|---|---|---|\n";
    for (name, field) in fields {
        let default = field.get("default").map_or("must be given".into(), |value| format!("`{value}`"));
        let values = referred(schema, field).map(choices).unwrap_or_default();
        let about = one_line(&field["description"]) + &values;
        text += &format!("| `{name}` | {} | {default} | {about} |\n", takes(schema, field));
    }
    text
}

/// What a field takes, in words.
fn takes(schema: &Value, field: &Value) -> String {
    if let Some(kind) = referred(schema, field) {
        let of = |one: &Value| match one.get("const") {
            Some(value) => format!("`{}`", plain(value)),
            None => takes(schema, one),
        };
        return alternatives(kind).iter().map(|one| of(one)).collect::<Vec<_>>().join(", ");
    }
    if let Some(only) = field.get("const") {
        return format!("`{}`", plain(only));
    }
    if let Some(values) = field["enum"].as_array() {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    let (names, nullable) = types(field);
    let mut text = names.join(" or ");
    if let Some(items) = field.get("items") {
        let (least, most) = (&field["minItems"], &field["maxItems"]);
        let count = if least == most && !least.is_null() { format!("{least} ") } else { String::new() };
        text = format!("list of {count}{}s{}", types(items).0.join(" or "), range(items));
    }
    text += &range(field);
    if nullable { text + ", or null" } else { text }
}

/// The JSON types of a field, and whether null is one of them.
fn types(field: &Value) -> (Vec<&str>, bool) {
    let all: Vec<&str> = match &field["type"] {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let nullable = all.contains(&"null");
    let words = all.into_iter().filter(|name| *name != "null" && *name != "array");
    (words.map(|name| if name == "string" { "text" } else { name }).collect(), nullable)
}

/// The bounds of a number.
fn range(field: &Value) -> String {
    let bound = |key: &str, words: &str| {
        field.get(key).map(|value| format!("{words} {}", shortest(value))).unwrap_or_default()
    };
    let parts = [
        bound("minimum", "from"),
        bound("exclusiveMinimum", "above"),
        bound("maximum", "to"),
        bound("exclusiveMaximum", "below"),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| format!(" {part}")).collect()
}

/// A number as people write it: 1 and not 1.0.
fn shortest(value: &Value) -> String {
    let text = value.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The alternatives of a kind of value.
fn alternatives(kind: &Value) -> Vec<&Value> {
    ["oneOf", "anyOf"].iter().filter_map(|key| kind[*key].as_array()).flatten().collect()
}

/// What each value of a kind means.
fn choices(kind: &Value) -> String {
    let of = |one: &&Value| {
        let name =
            one.get("const").map_or_else(|| "a number".to_owned(), |value| format!("`{}`", plain(value)));
        format!("<br>{name}: {}", one_line(&one["description"]))
    };
    alternatives(kind).iter().map(of).collect()
}

/// A description as one line of a table.
fn one_line(description: &Value) -> String {
    let words: Vec<&str> = description.as_str().unwrap_or_default().split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_row_and_every_value_its_meaning() {
        let schema = squad_proto::spec::schema();
        let page = spec_page(&schema);
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        let own =
            properties(&schema).iter().filter(|(_, field)| section_of(&schema, field).is_none()).count();
        let below = properties(&schema).into_iter().filter_map(|(_, field)| section_of(&schema, field));
        assert_eq!(rows, own + below.map(|section| properties(section).len()).sum::<usize>());
        for row in [
            "| `name` | text | must be given |",
            "| `max_seq_length` | integer from 8 to 8192 | `512` |",
            "| `steps` | integer from 1, or null | `null` |",
            "| `adam_betas` | list of 2 numbers from 0 to 0.9999999 | `[0.9,0.999]` |",
            "| `threshold_from` | `dev`, number above 0 below 0.5 | `\"dev\"` |",
            "<br>`span`: Start and end scores",
        ] {
            assert!(page.contains(row), "{row}: {page}");
        }
        assert!(!page.contains(" |  |\n"), "a field without a description");
    }

    #[test]
    fn codes_keep_their_pages() {
        let page = codes_page();
        assert_eq!(page.lines().filter(|line| line.starts_with("# ")).count(), 1);
        for code in FailureCode::ALL {
            assert!(page.contains(&format!("\n## {code}: ")), "{code}");
        }
    }
}
