//! Which checkpoint is whole, and why others are not.

use std::fs;
use std::path::{Path, PathBuf};

use squad_weights::Tensors;

use super::state::TrainingState;
use super::{MANIFEST, Manifest, SCHEMA, digest, list, name_of};
use crate::adamw::Moments;
use crate::error::TrainError;

/// A checkpoint of which every byte is as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Where it is.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its [`Manifest::identity`].
    pub identity: String,
}

/// A checkpoint that was passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Where it is.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for PassedOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was passed over: {}", self.folder.display(), self.reason)
    }
}

/// Compares every byte of a checkpoint with its manifest.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn verify(folder: &Path) -> Result<Verified, String> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(|e| format!("{MANIFEST} cannot be read: {e}"))?;
    let manifest = Manifest::read(&text)?;
    if manifest.schema > SCHEMA {
        return Err(format!(
            "it is of format {}, this program knows formats up to {SCHEMA}",
            manifest.schema
        ));
    }
    if folder.file_name().is_none_or(|name| name != name_of(manifest.step).as_str()) {
        return Err(format!("{MANIFEST} says step {}, the folder's name another one", manifest.step));
    }
    for file in &manifest.files {
        let name = &file.name;
        let (bytes, sha256) =
            digest(&folder.join(name)).map_err(|e| format!("{name} cannot be read: {e}"))?;
        if bytes != file.bytes {
            return Err(format!("{name} has {bytes} bytes, it was written with {}", file.bytes));
        }
        if sha256 != file.sha256 {
            return Err(format!("{name} is not as it was written: its SHA-256 differs"));
        }
    }
    let identity = manifest.identity();
    Ok(Verified { folder: folder.to_owned(), manifest, identity })
}

/// The newest checkpoint that `fit` finds no fault with, and all newer ones with what is wrong with them.
///
/// # Errors
/// When the folder exists and cannot be listed.
pub fn newest(
    output: &Path,
    fit: impl Fn(&Verified) -> Result<(), String>,
) -> Result<(Option<Verified>, Vec<PassedOver>), TrainError> {
    let mut passed_over = Vec::new();
    for folder in list(output)?.into_iter().rev() {
        match verify(&folder).and_then(|verified| fit(&verified).map(|()| verified)) {
            Ok(verified) => return Ok((Some(verified), passed_over)),
            Err(reason) => passed_over.push(PassedOver { folder, reason }),
        }
    }
    Ok((None, passed_over))
}

/// Every whole checkpoint, oldest first, and the others with what is wrong with them.
///
/// # Errors
/// When the folder exists and cannot be listed.
pub fn whole(output: &Path) -> Result<(Vec<Verified>, Vec<PassedOver>), TrainError> {
    let (mut found, mut passed_over) = (Vec::new(), Vec::new());
    for folder in list(output)? {
        match verify(&folder) {
            Ok(verified) => found.push(verified),
            Err(reason) => passed_over.push(PassedOver { folder, reason }),
        }
    }
    Ok((found, passed_over))
}

/// Whether a checkpoint holds what going on needs.
///
/// # Errors
/// Says what it lacks.
pub fn resumable(verified: &Verified) -> Result<(), String> {
    if verified.manifest.schema < SCHEMA {
        return Err(format!(
            "it is of format {}, which held only the model; it can be evaluated, not gone on from",
            verified.manifest.schema
        ));
    }
    Ok(())
}

/// Reads the training state of a checkpoint: what the log and the optimizer knew. `stages` are the lengths of the
/// network's stages.
///
/// # Errors
/// When the files do not belong to such a network.
pub fn read_state(
    verified: &Verified,
    stages: &[usize],
) -> Result<(TrainingState, Vec<Moments>), TrainError> {
    let wrong = |what: String| TrainError::Resume(format!("{}: {what}", verified.folder.display()));
    let path = verified.folder.join(super::writer::STATE);
    let text = fs::read(&path).map_err(TrainError::output("read", &path))?;
    let state = serde_json::from_slice(&text).map_err(|e| wrong(format!("{}: {e}", super::writer::STATE)))?;
    let path = verified.folder.join(super::writer::OPTIMIZER);
    let mut tensors = squad_weights::read(&path).map_err(|e| wrong(e.to_string()))?;
    let moments = stages.iter().enumerate().map(|(stage, len)| {
        let mut one = |which| take(&mut tensors, &super::writer::moment_name(stage, which), *len);
        Some(Moments { first: one("first")?, second: one("second")? })
    });
    let moments: Option<Vec<Moments>> = moments.collect();
    let moments = moments.ok_or_else(|| wrong("its optimizer state belongs to another model".into()))?;
    Ok((state, moments))
}

fn take(tensors: &mut Tensors, name: &str, len: usize) -> Option<Vec<f32>> {
    tensors.remove(name).map(|(_, values)| values).filter(|values| values.len() == len)
}
