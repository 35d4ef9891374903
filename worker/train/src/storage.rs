//! Whether ranks see the same output folder. It is found out, not assumed: rank 0 leaves a mark with a random name, and
//! whoever does not see it has a folder of its own under that path.

use std::fs;
use std::path::{Path, PathBuf};

use squad_collective::Background;
use squad_proto::outputs::mark_name;

use crate::error::TrainError;
use crate::evaluate::gather;

/// A file with a random name and content in an output folder, as long as the value lives.
#[derive(Debug)]
pub struct Mark {
    path: PathBuf,
    token: String,
}

impl Mark {
    /// Leaves a mark in a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave(folder: &Path) -> Result<Self, TrainError> {
        let token = hex::encode(rand::random::<[u8; 16]>());
        let path = mark_name(&token).map(|name| folder.join(name));
        let path = path.ok_or_else(|| TrainError::Internal(format!("{token} marks nothing")))?;
        fs::write(&path, &token).map_err(TrainError::output("write", &path))?;
        Ok(Self { path, token })
    }

    /// What is told to those who are to look for it.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // What stays of it is a few bytes that nobody looks for again.
        fs::remove_file(&self.path).ok();
    }
}

/// Whether a folder holds the mark of this token.
pub fn sees(folder: &Path, token: &str) -> bool {
    let found = mark_name(token).and_then(|name| fs::read(folder.join(name)).ok());
    found.is_some_and(|found| found == token.as_bytes())
}

/// The lowest rank that does not see rank 0's output folder under its own path, if there is one. All ranks call it at
/// once; rank 0's folder exists.
///
/// # Errors
/// When rank 0 cannot write there, and what broke the collective.
pub fn second_keeper(output: &Path, collective: &Background) -> Result<Option<usize>, TrainError> {
    if collective.world() == 1 {
        return Ok(None);
    }
    let mark = (collective.rank() == 0).then(|| Mark::leave(output)).transpose()?;
    let own: Vec<String> = mark.iter().map(|mark| mark.token().to_owned()).collect();
    let token = gather(collective, &own)?.into_iter().next().unwrap_or_default();
    let seen = gather(collective, &[sees(output, &token)])?;
    Ok(seen.iter().position(|sees| !sees))
}

/// This machine's name, for people.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "this machine".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_seen_where_it_was_left_and_nowhere_else() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mark = Mark::leave(here.path()).unwrap();
        assert!(sees(here.path(), mark.token()) && !sees(there.path(), mark.token()));
        // A file of that name that somebody else wrote is another mark.
        fs::write(there.path().join(mark_name(mark.token()).unwrap()), "other").unwrap();
        assert!(!sees(there.path(), mark.token()));
        for token in ["", "../../etc/passwd", "abc"] {
            assert!(!sees(here.path(), token), "{token}");
        }
        let token = mark.token().to_owned();
        drop(mark);
        assert!(!sees(here.path(), &token));
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
    }
}
