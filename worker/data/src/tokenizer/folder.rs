//! A model folder's files, as far as a tokenizer needs them.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::DataError;

/// A model folder and its small JSON files; an absent one is `Null`.
pub(super) struct Folder {
    path: PathBuf,
    /// `tokenizer_config.json`.
    pub(super) settings: Value,
    /// `special_tokens_map.json`.
    pub(super) names: Value,
    /// `config.json`, the model's.
    pub(super) model: Value,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let empty = || Value::Null;
        let mut folder = Self { path: path.to_path_buf(), settings: empty(), names: empty(), model: empty() };
        folder.settings = folder.json("tokenizer_config.json")?;
        folder.names = folder.json("special_tokens_map.json")?;
        folder.model = folder.json("config.json")?;
        Ok(folder)
    }

    pub(super) fn error(&self, reason: String) -> DataError {
        DataError::Tokenizer { folder: self.path.clone(), reason }
    }

    /// Turns what went wrong with file `name` into an error of this folder.
    pub(super) fn broken<E: Display>(&self, name: &str) -> impl Fn(E) -> DataError {
        move |reason| self.error(format!("{name}: {reason}"))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, DataError> {
        std::fs::read(self.path.join(name)).map_err(self.broken(name))
    }

    /// A switch of `tokenizer_config.json`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.settings.get(name)?.as_bool()
    }

    fn json(&self, name: &str) -> Result<Value, DataError> {
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(self.broken(name)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Value::Null),
            Err(e) => Err(self.broken(name)(e)),
        }
    }
}
