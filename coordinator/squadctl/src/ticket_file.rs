//! The file with which workers join a job that launches none itself.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use squad_proto::Invitation;

/// A ticket that is removed when the job is over.
#[derive(Debug)]
pub(crate) struct TicketFile(PathBuf);

/// Writes a ticket so that a reader sees all of it or nothing, and nobody else reads it.
pub(crate) fn write(path: &Path, invitation: &Invitation) -> anyhow::Result<()> {
    let text = serde_json::to_string(invitation).context("cannot write the ticket as JSON")?;
    let name = path.file_name().context("--ticket-file names no file")?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // It may not have been made.
        std::fs::remove_file(&temporary).ok();
    }
    written.with_context(|| format!("cannot write the ticket {}", path.display()))
}

impl TicketFile {
    /// Writes the ticket of a job that ends with this process.
    pub(crate) fn write(path: &Path, invitation: &Invitation) -> anyhow::Result<Self> {
        write(path, invitation)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for TicketFile {
    fn drop(&mut self) {
        // Whoever reads it later is refused: nobody listens there any more.
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn nobody_else_reads_it_and_it_goes_with_its_job() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        std::fs::write(&path, "stale").unwrap();
        let invitation = Invitation {
            server: "http://127.0.0.1:1".into(),
            certificates: None,
            job: squad_proto::JobId("a-1".into()),
            token: "secret".into(),
            world: 2,
            patience_s: 60.0,
        };
        let file = TicketFile::write(&path, &invitation).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(serde_json::from_slice::<Invitation>(&std::fs::read(&path).unwrap()).unwrap(), invitation);
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let nowhere = write(&folder.path().join("none/ticket"), &invitation).unwrap_err();
        assert!(format!("{nowhere:#}").contains("none/ticket"), "{nowhere:#}");
    }
}
