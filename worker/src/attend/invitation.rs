//! The ticket file of workers that something else places.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use squad_proto::Invitation;
use thiserror::Error;

/// Why a ticket file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum InvitationError {
    /// It is not there, or not yet.
    #[error("cannot read the ticket {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("others can read the ticket {} (mode {mode:o}), and join the job with it; chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("{} is no ticket of this version: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl InvitationError {
    /// The file may come.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Reads a ticket file, which must be its owner's alone. One of root's may be read by a group as well: that is what a
/// mounted Kubernetes Secret is like, whose group is the pod's `fsGroup`.
///
/// # Errors
/// When it is not there, others can read it, or it holds something else.
pub(crate) fn read(path: &Path) -> Result<Invitation, InvitationError> {
    let fault = |source| InvitationError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(fault)?;
    let mode = metadata.mode() & 0o777;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(InvitationError::Open { path: path.to_owned(), mode });
    }
    let text = std::fs::read(path).map_err(fault)?;
    serde_json::from_slice(&text).map_err(|source| InvitationError::Content { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_what_others_cannot_read_is_a_ticket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        assert!(read(&path).unwrap_err().may_pass());
        let text = r#"{"server":"http://127.0.0.1:1","job":"a-1","token":"t","world":2,"patience_s":60.0}"#;
        std::fs::write(&path, text).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let root = std::fs::metadata(&path).unwrap().uid() == 0;
        for (bits, safe) in
            [(0o600, true), (0o400, true), (0o440, root), (0o644, false), (0o604, false), (0o660, false)]
        {
            mode(bits);
            match read(&path) {
                Ok(ticket) => assert!(safe && ticket.world == 2, "{bits:o}"),
                Err(refused) => assert!(
                    !safe && refused.to_string().contains("chmod 600") && !refused.may_pass(),
                    "{bits:o}: {refused}"
                ),
            }
        }
        mode(0o600);
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no ticket"));
    }
}
