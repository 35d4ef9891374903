//! Checkpoints: complete model folders that appear all at once or not at all.
//!
//! ```text
//! OUTPUT/checkpoints/step-00001200/
//!     config.json, model.safetensors, tokenizer files     the model, as everybody reads it
//!     optimizer.safetensors                               both moments of every stage, flat
//!     state.json                                          step, place in the data, sums of the log
//!     manifest.json                                       size and SHA-256 of every other file
//! ```
//! Seeds, learning rates and the order of the examples are functions of the step, so nothing else is needed.
//! A checkpoint is written to a temporary folder, synced, and renamed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`writer`] | a copy of the training state, written while training goes on |
//! | [`find`] | which checkpoint is whole, and why others are not |
//! | [`transfer`] | how it comes to ranks whose machines do not hold it |
//! | [`state`] | what a run is, and what of it must not change when it is gone on with |
//! | [`files`] | files and folders that are there whole or not at all |

pub mod files;
pub mod find;
pub mod state;
pub mod transfer;
pub mod writer;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use squad_model::{Network, save};
use squad_proto::outputs::TOKENIZER_FILES;
use squad_weights::{Existing, Tensors, WeightsError};

use crate::error::TrainError;
pub use files::{replace_folder, write_file, write_json};

/// Version of the format. Version 1 held only the model: it can be evaluated, not gone on from.
pub const SCHEMA: u32 = 2;

/// The file that describes all others.
pub const MANIFEST: &str = "manifest.json";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format, [`SCHEMA`] or older.
    pub schema: u32,
    /// Optimizer steps that were taken.
    pub step: u64,
    /// Size and SHA-256 of every other file.
    pub files: Vec<ManifestFile>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of the files that a folder holds.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn of(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(TrainError::output("list", folder))? {
            let path = entry.map_err(TrainError::output("list", folder))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let (bytes, sha256) = digest(&path).map_err(TrainError::output("read", &path))?;
            files.push(ManifestFile { name, bytes, sha256 });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { schema: SCHEMA, step, files })
    }

    /// Reads a manifest's text. The files that it names are in its own folder: a name that leads elsewhere is none.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(text).map_err(|e| format!("{MANIFEST} cannot be understood: {e}"))?;
        // Nothing holds the manifest's own checksum: any change that it survives shows here or in what it claims.
        if files::json_text(&manifest).is_none_or(|own| own != text) {
            return Err(format!("{MANIFEST} is not as it was written"));
        }
        match manifest.files.iter().find(|file| !is_plain(&file.name)) {
            Some(file) => Err(format!("{MANIFEST} names {:?}, which is no file of its folder", file.name)),
            None => Ok(manifest),
        }
    }
}

impl Manifest {
    /// A hash of all that training goes on from, in hex: of what the files hold but for the log's times in
    /// [`writer::STATE`]. Ranks that write the same step's checkpoint write the same.
    pub fn identity(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.schema, self.step));
        for file in self.files.iter().filter(|file| file.name != writer::STATE) {
            hash.update(format!("{} {} {}\n", file.sha256, file.bytes, file.name));
        }
        hex::encode(hash.finalize())
    }
}

/// Whether a name is that of a file in the same folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(only)) if only == name) && parts.next().is_none()
}

/// Size and SHA-256 of a file.
pub(crate) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// Where the checkpoints of an output folder are.
pub fn folder_of(output: &Path) -> PathBuf {
    output.join("checkpoints")
}

/// The folder name of a step's checkpoint. Padded with zeros: the order of names is that of the steps.
pub fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// Checkpoints whose writing came to its end, oldest first; whether they are still whole, [`find::verify`] tells.
///
/// # Errors
/// When the folder exists and cannot be read.
pub fn list(output: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let folder = folder_of(output);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(TrainError::output("list", &folder))? {
        let path = entry.map_err(TrainError::output("list", &folder))?.path();
        let is_step = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("step-"));
        if is_step && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes config, weights and tokenizer files of a network into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_model(network: &Network, model_folder: &Path, folder: &Path) -> Result<(), TrainError> {
    write_model_files((&save::config_json(network), &save::named_weights(network)), model_folder, folder)
}

/// Writes a model of this config and these weights; see [`write_model`].
fn write_model_files(
    (config, weights): (&Value, &Tensors),
    model_folder: &Path,
    folder: &Path,
) -> Result<(), TrainError> {
    let views = weights.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], &values[..]));
    write_tensors(&folder.join("model.safetensors"), views)?;
    write_json(&folder.join("config.json"), config)?;
    for name in TOKENIZER_FILES {
        let from = model_folder.join(name);
        // Copying a file onto itself would empty it.
        if from.is_file() && folder != model_folder {
            fs::copy(&from, folder.join(name)).map_err(TrainError::output("copy", &from))?;
        }
    }
    Ok(())
}

/// Writes tensors as safetensors, whole and durable or not at all.
fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [i64], &'a [f32])>,
) -> Result<(), TrainError> {
    squad_weights::write_safetensors(path, tensors, Existing::Replace).map_err(|error| match error {
        // A full disk is no fault of the model.
        WeightsError::Io { path, source } => TrainError::Output { action: "write", path, source },
        other => TrainError::Model(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_folders_are_listed_in_order() {
        let place = tempfile::tempdir().unwrap();
        for step in ["step-00000200", "step-00000100", ".step-00000300.tmp", "damaged-step-00000150"] {
            fs::create_dir_all(folder_of(place.path()).join(step)).unwrap();
        }
        fs::write(folder_of(place.path()).join("step-note"), "").unwrap();
        let names: Vec<_> =
            list(place.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["step-00000100", "step-00000200"]);
    }

    #[test]
    fn a_manifest_names_files_of_its_folder_only() {
        // What fuzzers of manifests begin with.
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/checkpoint_manifest");
        let files: Vec<PathBuf> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 5);
        for path in files {
            let text = fs::read(&path).unwrap();
            let read = Manifest::read(&text);
            assert_eq!(read.is_ok(), path.ends_with("a-whole.json"), "{}: {read:?}", path.display());
            for at in 0..text.len() {
                let changed: Vec<u8> = [&text[..at], &[text[at] ^ 1], &text[at + 1..]].concat();
                for file in Manifest::read(&changed).into_iter().flat_map(|manifest| manifest.files) {
                    assert_eq!(
                        Path::new("/c").join(&file.name).parent(),
                        Some(Path::new("/c")),
                        "{}",
                        file.name
                    );
                }
            }
        }
    }
}
