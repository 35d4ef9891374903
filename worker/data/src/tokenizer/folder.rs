//! A model folder's files, as far as a tokenizer needs them.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

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
    /// Names and contents of the files that were read.
    read: RefCell<Sha256>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let empty = || Value::Null;
        let mut folder = Self {
            path: path.to_path_buf(),
            settings: empty(),
            names: empty(),
            model: empty(),
            read: RefCell::default(),
        };
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
        self.read(name).map_err(self.broken(name))
    }

    /// SHA-256 over the names and contents of all files that were read so far, in that order.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.read.borrow().clone().finalize().into()
    }

    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let bytes = std::fs::read(self.path.join(name))?;
        let mut hash = self.read.borrow_mut();
        for part in [name.as_bytes(), &bytes] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Ok(bytes)
    }

    /// A switch of `tokenizer_config.json`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.settings.get(name)?.as_bool()
    }

    fn json(&self, name: &str) -> Result<Value, DataError> {
        match self.read(name) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(self.broken(name)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Value::Null),
            Err(e) => Err(self.broken(name)(e)),
        }
    }
}
