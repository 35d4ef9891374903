//! Files with secrets: only their owner may read them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use thiserror::Error;

/// Why a file is not taken for a secret.
#[derive(Debug, Error)]
pub enum NotPrivate {
    /// It cannot be looked at.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is no file.
    #[error("it is no file")]
    NoFile,
    /// Others can read it.
    #[error("others can read it (its mode is {mode:03o}); take that away with chmod 600")]
    Open {
        /// Its rights.
        mode: u32,
    },
}

/// Checks that a file is its owner's alone. A file of root's may in addition be read by a group, as system keys and
/// mounted Kubernetes secrets are.
///
/// # Errors
/// When others can read or write it, or it is no file.
pub fn check_private(path: &Path) -> Result<(), NotPrivate> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(NotPrivate::NoFile);
    }
    let mode = metadata.mode() & 0o777;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if mode & forbidden == 0 { Ok(()) } else { Err(NotPrivate::Open { mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_others_can_read_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(check_private(&path), Err(NotPrivate::Io(_))));
        assert!(matches!(check_private(folder.path()), Err(NotPrivate::NoFile)));
        fs::write(&path, "x").unwrap();
        for (mode, private) in [(0o600, true), (0o400, true), (0o644, false), (0o604, false), (0o660, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_private(&path).is_ok(), private, "{mode:o}");
        }
    }
}
