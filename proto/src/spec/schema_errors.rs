//! What the schema validator finds, in a user's words.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use super::{Problem, schema};
use crate::nearest::nearest;

/// Turns an error of the schema validator into a [`Problem`] in a user's words.
pub(super) fn describe(error: &jsonschema::ValidationError<'_>, problems: &mut Vec<Problem>) {
    let path = error.instance_path.to_string().trim_start_matches('/').replace('/', ".");
    let found = short(&error.instance);
    let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    let allowed = match &error.kind {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = known_fields(&path);
            problems.extend(unexpected.iter().map(|field| {
                Problem {
                    path: at(field),
                    found: "a field that does not exist".into(),
                    allowed: nearest(field, known.iter().map(String::as_str))
                        .map_or_else(|| known.join(", "), |near| format!("did you mean {near}?")),
                }
            }));
            return;
        }
        ValidationErrorKind::Required { property } => {
            let field = property.as_str().unwrap_or_default();
            problems.push(Problem {
                path: at(field),
                found: "nothing".into(),
                allowed: "a value: it is required".into(),
            });
            return;
        }
        ValidationErrorKind::Type { kind } => type_names(kind),
        ValidationErrorKind::Minimum { limit } => format!("at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("more than {limit}"),
        ValidationErrorKind::Enum { options } => join(options),
        ValidationErrorKind::Constant { expected_value } => short(expected_value),
        ValidationErrorKind::OneOfNotValid { .. } | ValidationErrorKind::AnyOf { .. } => {
            choices(&error.schema_path.to_string())
        }
        ValidationErrorKind::Pattern { .. } => {
            "lower-case letters, digits and hyphens, not starting or ending with a hyphen".into()
        }
        ValidationErrorKind::MinLength { limit } => format!("at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("at most {limit} characters"),
        _ => error.to_string(),
    };
    problems.push(Problem { path, found, allowed });
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

fn join(options: &Value) -> String {
    options.as_array().map_or_else(String::new, |o| o.iter().map(short).collect::<Vec<_>>().join(", "))
}

fn type_names(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(many) => many.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(" or "),
    }
}

/// The values of a `oneOf`, which is how the schema writes a documented choice: constants, or numbers
/// between two bounds.
fn choices(schema_path: &str) -> String {
    let schema = schema();
    // A path through `$ref` names the definition's place in the path of use: follow it.
    let mut node = &schema;
    for part in schema_path.trim_start_matches('/').split('/') {
        if part == "$ref" {
            let target = node.get("$ref").and_then(Value::as_str).unwrap_or_default();
            node = schema.pointer(target.trim_start_matches('#')).unwrap_or(&Value::Null);
        } else if let Ok(index) = part.parse::<usize>() {
            node = node.get(index).unwrap_or(&Value::Null);
        } else {
            node = node.get(part).unwrap_or(&Value::Null);
        }
    }
    let name = |choice: &Value| match choice.get("const") {
        Some(constant) => Some(short(constant)),
        None => {
            let (above, below) = (choice.get("exclusiveMinimum")?, choice.get("exclusiveMaximum")?);
            Some(format!("a number more than {above} and less than {below}"))
        }
    };
    let names: Vec<String> = node.as_array().into_iter().flatten().filter_map(name).collect();
    if names.is_empty() { "see squadctl schema".into() } else { names.join(", ") }
}

/// The fields that the schema knows at a path of sections.
fn known_fields(path: &str) -> Vec<String> {
    let schema = schema();
    let mut node = &schema;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        node = &node["properties"][part];
        if let Some(target) = node.get("$ref").and_then(Value::as_str) {
            node = schema.pointer(target.trim_start_matches('#')).unwrap_or(&Value::Null);
        }
    }
    node["properties"].as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}
