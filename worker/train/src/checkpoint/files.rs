//! Files and folders that are there whole or not at all.

use std::fs::{self, File};
use std::path::Path;

use serde::Serialize;

use crate::error::TrainError;

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
    tidy_one(&temporary)?;
    tidy_one(&old)?;
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

/// Tidies up after a process that was killed while it wrote folders into `parent`: what was half-written goes, what
/// was about to be replaced stays where nothing has taken its place.
///
/// # Errors
/// When a leftover cannot be deleted.
pub fn tidy(parent: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(parent).map_err(TrainError::output("list", parent))? {
        tidy_one(&entry.map_err(TrainError::output("list", parent))?.path())?;
    }
    Ok(())
}

fn tidy_one(path: &Path) -> Result<(), TrainError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((target, kind)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else {
        return Ok(());
    };
    let target = path.with_file_name(target);
    match kind {
        // The crash came between the two renames of a replacement: this is the only copy.
        "old" if path.exists() && !target.exists() => {
            fs::rename(path, &target).map_err(TrainError::output("rename", path))
        }
        "old" | "tmp" if path.exists() => {
            fs::remove_dir_all(path).map_err(TrainError::output("delete", path))
        }
        _ => Ok(()),
    }
}

/// Writes JSON to a temporary file beside `path`, syncs it and renames it.
///
/// # Errors
/// When it cannot be written; then `path` is as it was.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text =
        json_text(value).ok_or_else(|| TrainError::Internal(format!("{}: no JSON", path.display())))?;
    write_file(path, &text)
}

/// The text that [`write_json`] writes; `None` for what cannot be JSON.
pub(super) fn json_text(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).ok()?;
    text.push(b'\n');
    Some(text)
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

pub(super) fn sync(path: &Path) -> Result<(), TrainError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(TrainError::output("sync", path))
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(folder).map_err(TrainError::output("list", folder))? {
        sync(&entry.map_err(TrainError::output("list", folder))?.path())?;
    }
    sync(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_is_tidied() {
        let place = tempfile::tempdir().unwrap();
        for name in [".a.tmp", ".b.old", ".c.old", "c", "d"] {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::write(place.path().join(name).join("file"), name).unwrap();
        }
        tidy(place.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b", "c", "d"]);
        assert_eq!(
            fs::read_to_string(place.path().join("b/file")).unwrap(),
            ".b.old",
            "the only copy is back"
        );
        assert_eq!(fs::read_to_string(place.path().join("c/file")).unwrap(), "c", "the newer one stays");
    }

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
}
