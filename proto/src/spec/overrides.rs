//! `--set train.epochs=1`: changes to a spec before it is validated.

use serde_json::{Map, Value};
use thiserror::Error;

/// An override that cannot be applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OverrideError {
    /// The text has no `=`, or nothing before it.
    #[error("--set {0}: write it as section.field=value, for example --set train.epochs=1")]
    Form(String),
    /// The path goes through something that has no fields.
    #[error("--set {path}: {parent} is not a section, it has no fields")]
    NotASection {
        /// The whole path.
        path: String,
        /// Its part that is no section.
        parent: String,
    },
}

/// Sets one field of `spec` as in `train.epochs=1`. The value is read as YAML, so `null`, `true`, `2e-5`
/// and `[0.9, 0.98]` are what they look like. Whether field and value are allowed is for validation to say.
///
/// # Errors
/// When the text has not the form `path=value`, or the path leads through a plain value.
pub fn apply_override(spec: &mut Value, text: &str) -> Result<(), OverrideError> {
    let (path, value) = text
        .split_once('=')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| OverrideError::Form(text.into()))?;
    // serde_norway reads 2e-5 (no dot) as a string, as YAML 1.1 does; JSON's grammar goes first.
    let value: Value = serde_json::from_str(value)
        .or_else(|_| serde_norway::from_str(value))
        .unwrap_or_else(|_| Value::String(value.into()));
    let parts: Vec<&str> = path.split('.').collect();
    let mut node = spec;
    for (depth, part) in parts.iter().enumerate() {
        let Value::Object(fields) = node else {
            return Err(OverrideError::NotASection { path: path.into(), parent: parts[..depth].join(".") });
        };
        if depth + 1 == parts.len() {
            fields.insert((*part).into(), value);
            return Ok(());
        }
        node = fields.entry(*part).or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_nested_and_new_sections() {
        let mut spec = json!({"train": {"epochs": 3}});
        apply_override(&mut spec, "train.epochs=1.5").unwrap();
        apply_override(&mut spec, "train.learning_rate=2e-4").unwrap();
        apply_override(&mut spec, "data.train=a=b.json").unwrap();
        apply_override(&mut spec, "train.adam_betas=[0.9, 0.98]").unwrap();
        assert_eq!(
            spec,
            json!({"train": {"epochs": 1.5, "learning_rate": 2e-4, "adam_betas": [0.9, 0.98]}, "data": {"train": "a=b.json"}})
        );
    }

    #[test]
    fn refuses_what_is_no_path() {
        assert_eq!(apply_override(&mut json!({}), "epochs"), Err(OverrideError::Form("epochs".into())));
        assert!(matches!(
            apply_override(&mut json!({"name": "a"}), "name.x=1"),
            Err(OverrideError::NotASection { .. })
        ));
    }
}
