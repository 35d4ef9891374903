//! SQuAD's official question files: fetched where they are missing, verified where they are there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checksum::sha1_of;
use crate::download::{Download, Outcome, download};
use crate::hosts::SQUAD;
use crate::options::{Patience, Progress};
use crate::{FetchError, FileState};

/// An official file. The publisher tells neither size nor checksum: the values are those that GluonNLP's
/// `prepare_squad.py` carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SquadFile {
    /// Its name, at the publisher and here.
    pub name: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-1 in lower-case hexadecimal digits.
    pub sha1: &'static str,
}

/// A version of SQuAD: one file to train on and one to evaluate with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The version's number.
    pub version: &'static str,
    /// Its files.
    pub files: [SquadFile; 2],
}

/// SQuAD 1.1: every question has an answer.
pub const V1_1: Release = Release {
    version: "1.1",
    files: [
        SquadFile {
            name: "train-v1.1.json",
            bytes: 30_288_272,
            sha1: "1faea1252438a64f9718412a55036b786cfcc636",
        },
        SquadFile {
            name: "dev-v1.1.json",
            bytes: 4_854_279,
            sha1: "e1621aae0683b346ee9743bd5609266ba0cc34fc",
        },
    ],
};

/// SQuAD 2.0: with questions that have none.
pub const V2_0: Release = Release {
    version: "2.0",
    files: [
        SquadFile {
            name: "train-v2.0.json",
            bytes: 42_123_633,
            sha1: "ceb2acdea93b9d82ab1829c7b1e03bee9e302c99",
        },
        SquadFile {
            name: "dev-v2.0.json",
            bytes: 4_370_528,
            sha1: "53ebaeb15bc5cab36645150f6f65d074348e2f3d",
        },
    ],
};

/// How to bring the files.
#[derive(Clone, Debug)]
pub struct SquadOptions {
    /// The address of the folder that holds them.
    pub base: String,
    /// Whether files that are there under the right names, but are not the official ones, are replaced.
    pub force: bool,
    /// Whether the network is refused; what is there is verified all the same.
    pub offline: bool,
    /// Deadlines and retries.
    pub patience: Patience,
    /// Whom to tell.
    pub progress: Progress,
}

impl Default for SquadOptions {
    fn default() -> Self {
        Self {
            base: SQUAD.to_owned(),
            force: false,
            offline: false,
            patience: Patience::default(),
            progress: Progress::default(),
        }
    }
}

/// What preparing came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SquadReport {
    /// The version.
    pub version: &'static str,
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// What became of each file; both are verified.
    pub files: Vec<SquadFileReport>,
}

/// What became of an official file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SquadFileReport {
    /// The file.
    #[serde(flatten)]
    pub file: SquadFile,
    /// Whether it was there or came.
    pub state: FileState,
}

/// Brings the files of `release` into the folder `dir`, and verifies those that are there.
///
/// All that is there is looked at before anything is fetched, so that a file in the way is told at once.
///
/// # Errors
/// [`FetchError::NotOfficial`] for the first file in the way, unless it may be replaced; [`FetchError::Offline`] for
/// files that are missing then; [`FetchError::Questions`] where the server or what it sends fails; else as
/// [`download`].
pub fn prepare(release: &Release, dir: &Path, options: &SquadOptions) -> Result<SquadReport, FetchError> {
    let mut missing = Vec::new();
    for file in release.files {
        let path = dir.join(file.name);
        match difference(&path, &file)? {
            Difference::None => {}
            Difference::Absent => missing.push(file),
            Difference::Found(_) if options.force && !options.offline => missing.push(file),
            Difference::Found(difference) => return Err(FetchError::NotOfficial { path, difference }),
        }
    }
    if options.offline && !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|file| file.name).collect();
        let (what, folder) = (format!("SQuAD {}", release.version), dir.to_owned());
        return Err(FetchError::Offline { what, folder, missing: names.join(", ") });
    }
    let mut files = Vec::new();
    for file in release.files {
        let state = if missing.contains(&file) { fetch(&file, dir, options)? } else { FileState::Present };
        files.push(SquadFileReport { file, state });
    }
    Ok(SquadReport { version: release.version, folder: dir.to_owned(), files })
}

/// How what lies at a path differs from the official file.
enum Difference {
    None,
    /// Nothing is there.
    Absent,
    /// Something else is there; in words.
    Found(String),
}

fn difference(path: &Path, file: &SquadFile) -> Result<Difference, FetchError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Difference::Absent),
        Err(error) => return Err(FetchError::file("read", path)(error)),
    };
    if meta.len() != file.bytes {
        let found = format!("its size is {} bytes, expected {}", meta.len(), file.bytes);
        return Ok(Difference::Found(found));
    }
    let sha1 = sha1_of(path)?;
    if sha1 == file.sha1 {
        return Ok(Difference::None);
    }
    Ok(Difference::Found(format!("its SHA-1 is {sha1}, expected {}", file.sha1)))
}

/// Brings one file, over whatever is there.
fn fetch(file: &SquadFile, dir: &Path, options: &SquadOptions) -> Result<FileState, FetchError> {
    let url = format!("{}/{}", options.base.trim_end_matches('/'), file.name);
    let target = dir.join(file.name);
    let wanted = Download {
        url: &url,
        target: &target,
        token: None,
        sha256: None,
        sha1: Some(file.sha1),
        size: Some(file.bytes),
        refresh: false,
    };
    match download(&wanted, &options.patience, &options.progress)
        .map_err(|error| of_questions(error, &target))?
    {
        // Another process has brought it meanwhile.
        Outcome::Present => Ok(FileState::Present),
        Outcome::Fetched { .. } => Ok(FileState::Fetched),
    }
}

/// What a download says about revisions, tokens and the hub's mirror is of no use here.
fn of_questions(error: FetchError, target: &Path) -> FetchError {
    let (url, reason) = match error {
        FetchError::NotFound { url } => (url, "it does not exist there (404)".to_owned()),
        FetchError::Denied { url, status } => (url, format!("the server refused it ({status})")),
        FetchError::Network { url, reason, tries, .. } => (url, format!("{reason} (tries: {tries})")),
        FetchError::Mismatch { url, what, expected, found, .. } => {
            (url, format!("it is not the official file: {what} is {found}, expected {expected}"))
        }
        error => return error,
    };
    FetchError::Questions { url, target: target.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for release in [V1_1, V2_0] {
            for (file, part) in release.files.iter().zip(["train", "dev"]) {
                assert_eq!(file.name, format!("{part}-v{}.json", release.version));
                assert!(file.sha1.len() == 40 && file.sha1.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
        let mut sums: Vec<&str> = [V1_1, V2_0].iter().flat_map(|r| r.files.map(|file| file.sha1)).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), 4);
    }
}
