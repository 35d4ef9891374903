//! What a rank read, in a form that ranks can compare: every machine reads the spec's files itself.

use std::path::Path;

use sha2::{Digest, Sha256};
use squad_model::save;
use squad_proto::outputs::TOKENIZER_FILES;
use squad_proto::{JobSpec, Task};

use crate::checkpoint::digest;
use crate::error::TrainError;
use crate::prepare::Prepared;

/// What a rank read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Field and path of each file, and the SHA-256 of what it holds, in hex.
    pub files: Vec<(String, String)>,
    /// SHA-256 of the weights, in hex; empty where they are a checkpoint's, which is compared otherwise.
    pub weights: String,
}

impl Contents {
    /// What a prepared rank read.
    ///
    /// # Errors
    /// When a file can no longer be read.
    pub fn of(prepared: &Prepared, spec: &JobSpec, task: &Task) -> Result<Self, TrainError> {
        let mut files = Vec::new();
        let train = spec.data.train.as_ref().filter(|_| task.trains());
        for (field, path) in [("data.train", train), ("data.dev", spec.data.dev.as_ref())] {
            let Some(path) = path else { continue };
            let (_, sha256) = digest(Path::new(path)).map_err(TrainError::output("read", Path::new(path)))?;
            files.push((format!("{field} ({path})"), sha256));
        }
        let folder = &prepared.model_folder;
        files.push((format!("the tokenizer of model ({})", folder.display()), tokenizer(folder)?));
        let weights = match &prepared.resumed {
            Some(_) => String::new(),
            None => save::weights_sha256(&prepared.network),
        };
        Ok(Self { files, weights })
    }
}

/// A hash of the tokenizer files that are there.
fn tokenizer(folder: &Path) -> Result<String, TrainError> {
    let mut hash = Sha256::new();
    for name in TOKENIZER_FILES {
        let path = folder.join(name);
        if path.is_file() {
            let (bytes, sha256) = digest(&path).map_err(TrainError::output("read", &path))?;
            hash.update(format!("{name} {bytes} {sha256}\n"));
        }
    }
    Ok(hex::encode(hash.finalize()))
}
