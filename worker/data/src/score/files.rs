//! Reading the files that the official script reads beside the questions.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::DataError;

/// Reads a prediction file: one JSON object, question id to text.
///
/// # Errors
/// [`DataError::Read`], [`DataError::Json`], or [`DataError::Predictions`] naming the id whose value is no text.
pub fn read_predictions(path: &Path) -> Result<BTreeMap<String, String>, DataError> {
    let entry = |(id, value): (String, Value)| match value {
        Value::String(text) => Ok((id, text)),
        other => Err(wrong(path, format!("the prediction of question {id} must be a text, found {other}"))),
    };
    object(path)?.into_iter().map(entry).collect()
}

/// Reads a file of null odds (one JSON object, question id to number), keeping its order.
///
/// # Errors
/// [`DataError::Read`], [`DataError::Json`], or [`DataError::Predictions`] naming the id whose value is no number.
pub fn read_na_prob(path: &Path) -> Result<Vec<(String, f64)>, DataError> {
    let entry = |(id, value): (String, Value)| match value.as_f64() {
        Some(odds) => Ok((id, odds)),
        None => Err(wrong(path, format!("the null odds of question {id} must be a number, found {value}"))),
    };
    object(path)?.into_iter().map(entry).collect()
}

fn object(path: &Path) -> Result<Map<String, Value>, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read { file: path.to_path_buf(), source })?;
    match serde_json::from_slice(&bytes).map_err(|e| DataError::json(path, &e))? {
        Value::Object(map) => Ok(map),
        _ => Err(wrong(path, "it must hold one JSON object with the question ids as keys".to_owned())),
    }
}

fn wrong(path: &Path, reason: String) -> DataError {
    DataError::Predictions { file: path.to_path_buf(), reason }
}
