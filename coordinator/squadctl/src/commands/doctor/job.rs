//! What a job needs of a machine, as far as its files tell.

use std::fs;
use std::path::Path;

use squad_fetch::zoo;
use squad_proto::JobSpec;

use super::Check;
use super::machine::room;
use crate::sizes::approximate as size;

/// What a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Memory of one worker for weights, gradients and two moments; 0 where the model's size is not known.
    pub(super) worker_bytes: u64,
    /// A checkpoint on disk: weights and two moments.
    pub(super) checkpoint_bytes: u64,
    /// How many of them are there at most: those that are kept, and the one that is being written.
    pub(super) kept: u64,
}

impl Need {
    /// What a spec with absolute paths needs. Weights are taken for 32-bit floats.
    pub(super) fn of(spec: &JobSpec, workers: u32) -> Self {
        let weights = weights(&spec.model).unwrap_or(0);
        let trains = spec.data.train.is_some();
        // Rank 0 holds a second copy of weights and moments while it writes a checkpoint: shared among all here.
        let copy = weights * 3 / u64::from(workers.max(1));
        Self {
            worker_bytes: if trains { weights * 4 + copy } else { weights },
            checkpoint_bytes: if trains { weights * 3 } else { 0 },
            kept: u64::from(spec.train.keep_checkpoints) + 1,
        }
    }
}

/// Bytes of a model's weights: of its files where it is a folder, else of the zoo's entry.
fn weights(model: &str) -> Option<u64> {
    let Ok(files) = fs::read_dir(model) else {
        return zoo::find(model).map(|entry| entry.parameters * 4);
    };
    let files: Vec<(String, u64)> = files
        .flatten()
        .filter_map(|file| Some((file.file_name().into_string().ok()?, file.metadata().ok()?.len())))
        .collect();
    let of = |end: &str| -> u64 {
        files.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, bytes)| bytes).sum()
    };
    // One form of them is read, in this order.
    [".safetensors", ".bin", ".params"].into_iter().map(of).find(|bytes| *bytes > 0)
}

/// The disk that a job writes to.
pub(super) fn disk(output: &Path, need: &Need) -> Option<Check> {
    let name = "output_dir";
    let place = output.ancestors().find(|folder| folder.is_dir())?;
    let (one, all) = (need.checkpoint_bytes, need.checkpoint_bytes * need.kept);
    let remedy = "free some, choose another output_dir, or lower train.keep_checkpoints";
    Some(match room(place) {
        Ok((free, _)) => {
            let kept = format!("{} checkpoints of {}", need.kept, size(one));
            let wants = if one == 0 { String::new() } else { format!("; {kept} may come") };
            let text = format!("{}: {} free{wants}", output.display(), size(free));
            if free < one {
                Check::bad(name, text, remedy)
            } else if free < all {
                Check::warning(name, text, remedy)
            } else {
                Check::ok(name, text)
            }
        }
        Err(error) => Check::warning(name, format!("{}: {error}", output.display()), remedy),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    #[test]
    fn one_form_of_the_weights_counts() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().to_str().unwrap();
        assert_eq!(weights(model), None);
        for (name, bytes) in [("model.safetensors", 40), ("pytorch_model.bin", 44), ("config.json", 9)] {
            fs::write(folder.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(weights(model), Some(40));
        assert_eq!(
            weights("google_albert_base_v2"),
            zoo::find("google_albert_base_v2").map(|e| e.parameters * 4)
        );
        assert_eq!(weights("nobody/knows"), None);
    }

    #[test]
    fn a_disk_without_room_for_a_checkpoint_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("not/yet/there");
        let need = |checkpoint_bytes, kept| Need { worker_bytes: 0, checkpoint_bytes, kept };
        let finding = |need| disk(&output, &need).unwrap().finding;
        assert_eq!(finding(need(1 << 60, 2)), Finding::Bad);
        assert_eq!(finding(need(1 << 10, 1 << 50)), Finding::Warning);
        assert_eq!(finding(need(1 << 10, 2)), Finding::Ok);
    }
}
