//! One process at a time per file.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::FetchError;

/// How often a waiting process looks. Fixed: it only paces looks.
const POLL: Duration = Duration::from_millis(50);

/// The right to write one target. The system takes it back when the process ends, however it ends.
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still held: whoever waits notices that its file is no longer the one at the path.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file stays");
        }
    }
}

/// Waits for the lock of `target`, for as long as its holder makes headway and `patience` beyond.
pub(crate) fn acquire(
    target: &Path,
    part: &Path,
    patience: Duration,
    mut waiting: impl FnMut(),
) -> Result<Lock, FetchError> {
    let path = beside(target, ".lock");
    let mut quiet_since = Instant::now();
    let mut seen = None;
    loop {
        if let Some(file) = try_once(&path)? {
            return Ok(Lock { path, _file: file });
        }
        if seen.is_none() {
            waiting();
        }
        let now = std::fs::metadata(part).map(|meta| meta.len()).ok();
        if seen != Some(now) {
            seen = Some(now);
            quiet_since = Instant::now();
        }
        if quiet_since.elapsed() >= patience {
            let (target, seconds) = (target.to_owned(), patience.as_secs());
            return Err(FetchError::Locked { target, lock: path, seconds });
        }
        thread::sleep(POLL);
    }
}

/// The locked file at `path`, or `None` when another holds it.
fn try_once(path: &Path) -> Result<Option<File>, FetchError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(FetchError::file("create", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(source)) => return Err(FetchError::file("lock", path)(source)),
    }
    // The earlier holder may have removed the file between our opening and our locking it.
    let ours = file.metadata().map_err(FetchError::file("read", path))?;
    let current =
        std::fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (ours.dev(), ours.ino()));
    Ok(current.then_some(file))
}

/// `target` with `suffix` behind its name.
pub(crate) fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_and_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let part = beside(&target, ".part");
        let held = acquire(&target, &part, Duration::ZERO, || ()).unwrap();
        let mut waits = 0;
        let error = acquire(&target, &part, Duration::from_millis(120), || waits += 1).err().unwrap();
        assert!(matches!(error, FetchError::Locked { .. }), "{error}");
        assert_eq!(waits, 1);
        drop(held);
        assert!(!beside(&target, ".lock").exists());
        drop(acquire(&target, &part, Duration::ZERO, || ()).unwrap());
    }
}
