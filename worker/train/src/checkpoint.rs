//! Checkpoints: complete model folders that appear all at once or not at all.
//!
//! ```text
//! OUTPUT/checkpoints/step-00001200/{config.json, model.safetensors, tokenizer files, manifest.json}
//! ```
//! A checkpoint is written to a temporary folder, synced, and renamed. What it holds now is what evaluation
//! needs; the manifest's schema number leaves room for what resuming needs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use squad_model::{Network, save};

use crate::error::TrainError;

/// Files that make a tokenizer; those that are there are copied into every saved model.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// Optimizer steps that were taken.
    pub step: u64,
    /// Size and SHA-256 of every other file.
    pub files: Vec<ManifestFile>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// Where the checkpoints of an output folder are.
pub fn folder_of(output: &Path) -> PathBuf {
    output.join("checkpoints")
}

/// Complete checkpoints, oldest first.
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
        if is_step && path.join("manifest.json").is_file() {
            found.push(path);
        }
    }
    // Names are padded with zeros: their order is that of the steps.
    found.sort();
    Ok(found)
}

/// Writes the checkpoint of `step`, then deletes the oldest beyond `keep`.
///
/// # Errors
/// When a file cannot be written; checkpoints that were there stay.
pub fn write(
    network: &Network,
    model_folder: &Path,
    output: &Path,
    (step, keep): (u64, usize),
) -> Result<PathBuf, TrainError> {
    let target = folder_of(output).join(format!("step-{step:08}"));
    replace_folder(&target, |folder| {
        write_model(network, model_folder, folder)?;
        let manifest = Manifest { schema: 1, step, files: describe(folder)? };
        let path = folder.join("manifest.json");
        write_json(&path, &manifest)
    })?;
    let kept = list(output)?;
    for old in kept.iter().take(kept.len().saturating_sub(keep)) {
        fs::remove_dir_all(old).map_err(TrainError::output("delete", old))?;
    }
    Ok(target)
}

/// Writes config, weights and tokenizer files of a network into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_model(network: &Network, model_folder: &Path, folder: &Path) -> Result<(), TrainError> {
    save::write_weights(network, &folder.join("model.safetensors"))?;
    write_json(&folder.join("config.json"), &save::config_json(network))?;
    for name in TOKENIZER_FILES {
        let from = model_folder.join(name);
        // Copying a file onto itself would empty it.
        if from.is_file() && folder != model_folder {
            fs::copy(&from, folder.join(name)).map_err(TrainError::output("copy", &from))?;
        }
    }
    Ok(())
}

/// Fills a temporary folder, syncs it, and puts it in the place of `target`.
///
/// # Errors
/// When anything cannot be written; then `target` is as it was.
pub fn replace_folder(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(TrainError::output("create", parent))?;
    let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = parent.join(format!(".{name}.tmp"));
    let old = parent.join(format!(".{name}.old"));
    // A crash between the two renames below leaves the only copy there.
    if old.exists() && !target.exists() {
        fs::rename(&old, target).map_err(TrainError::output("rename", &old))?;
    }
    for leftover in [&temporary, &old] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).map_err(TrainError::output("delete", leftover))?;
        }
    }
    fs::create_dir(&temporary).map_err(TrainError::output("create", &temporary))?;
    let filled = fill(&temporary).and_then(|()| sync_folder(&temporary));
    if let Err(error) = filled {
        // The first error is the one to tell; a leftover is deleted by the next attempt.
        fs::remove_dir_all(&temporary).ok();
        return Err(error);
    }
    if target.exists() {
        fs::rename(target, &old).map_err(TrainError::output("rename", target))?;
    }
    fs::rename(&temporary, target).map_err(TrainError::output("rename", &temporary))?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(TrainError::output("delete", &old))?;
    }
    sync(parent)
}

/// Writes JSON to a temporary file beside `path`, syncs it and renames it.
///
/// # Errors
/// When it cannot be written; then `path` is as it was.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| TrainError::Internal(format!("{}: {e}", path.display())))?;
    text.push(b'\n');
    write_file(path, &text)
}

/// Writes a file atomically. See [`write_json`].
///
/// # Errors
/// When it cannot be written; then `path` is as it was.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    fs::write(&temporary, bytes).map_err(TrainError::output("write", &temporary))?;
    sync(&temporary)?;
    fs::rename(&temporary, path).map_err(TrainError::output("rename", &temporary))
}

fn sync(path: &Path) -> Result<(), TrainError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(TrainError::output("sync", path))
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(folder).map_err(TrainError::output("list", folder))? {
        sync(&entry.map_err(TrainError::output("list", folder))?.path())?;
    }
    sync(folder)
}

fn describe(folder: &Path) -> Result<Vec<ManifestFile>, TrainError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(TrainError::output("list", folder))? {
        let path = entry.map_err(TrainError::output("list", folder))?.path();
        let bytes = fs::read(&path).map_err(TrainError::output("read", &path))?;
        files.push(ManifestFile {
            name: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(&bytes)),
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_folder() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("step-1");
        replace_folder(&target, |f| fs::write(f.join("a"), "1").map_err(TrainError::output("write", f)))
            .unwrap();
        let failed = replace_folder(&target, |_| Err(TrainError::Internal("no".into())));
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "1");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing left behind");
        replace_folder(&target, |f| fs::write(f.join("b"), "2").map_err(TrainError::output("write", f)))
            .unwrap();
        assert!(!target.join("a").exists() && target.join("b").exists());
    }

    #[test]
    fn only_complete_checkpoints_are_listed_in_order() {
        let place = tempfile::tempdir().unwrap();
        for step in ["step-00000200", "step-00000100"] {
            let folder = folder_of(place.path()).join(step);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("manifest.json"), "{}").unwrap();
        }
        fs::create_dir_all(folder_of(place.path()).join("step-00000300")).unwrap();
        let names: Vec<_> =
            list(place.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["step-00000100", "step-00000200"]);
    }
}
