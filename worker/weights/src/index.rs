//! Weights spread over several files, with an index that says which file has which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use crate::contents::Contents;
use crate::error::{Fault, WeightsError};
use crate::{format, whole};

#[derive(Deserialize)]
struct Index {
    /// File by name of tensor.
    weight_map: BTreeMap<String, String>,
}

/// Reads the files that the index in `path`, of these bytes, names.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Contents, WeightsError> {
    let wrong = |message: String| WeightsError::Index { path: path.into(), message };
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|e| wrong(format!("not an index of weights, which is JSON with a weight_map: {e}")))?;
    let mut wanted = BTreeMap::<String, BTreeSet<String>>::new();
    for (tensor, file) in index.weight_map {
        wanted.entry(file).or_default().insert(tensor);
    }
    // Each file brings its own bound.
    let mut all = Contents::of_file(0);
    for (file, names) in wanted {
        if !is_plain(&file) {
            return Err(wrong(format!(
                "it names {file:?}, which leaves the folder; only files beside it are read"
            )));
        }
        let shard = path.with_file_name(&file);
        if !shard.is_file() {
            return Err(wrong(format!("its file {file} is missing; fetch it into the same folder")));
        }
        let bytes = std::fs::read(&shard).map_err(WeightsError::io(&shard))?;
        let mut contents = whole(format::recognise(&bytes), &bytes).map_err(Fault::of(&shard))?;
        for name in names {
            if let Some(tensor) = contents.tensors.remove(&name) {
                all.tensors.insert(name, tensor);
            } else if contents.left_out.contains(&name) {
                all.left_out.insert(name);
            } else {
                return Err(wrong(format!(
                    "it says that {file} holds {name}, but that file does not; the two do not belong together"
                )));
            }
        }
    }
    Ok(all)
}

/// Whether a name means a file of the same folder.
fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_stay_in_the_folder() {
        assert!(is_plain("model-00001-of-00002.safetensors"));
        for file in ["", ".", "..", "../a", "/etc/passwd", "a/b", "./a", "a/", "a/.."] {
            assert!(!is_plain(file), "{file:?}");
        }
    }
}
