//! What a folder of fetched files says about itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::FetchError;

const FILE: &str = ".squad-fetch.json";
/// Tells this process's writes apart.
static WRITES: AtomicU32 = AtomicU32::new(0);

/// Written into the folder beside the files of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) repository: String,
    /// As asked for: a branch, a tag or a commit.
    pub(crate) revision: String,
    /// What the revision meant when the files were fetched.
    pub(crate) commit: Option<String>,
    /// Whether every file was fetched or known to be absent.
    pub(crate) complete: bool,
    /// SHA-256 of the files fetched, by name.
    pub(crate) files: BTreeMap<String, String>,
}

impl Record {
    /// The folder's record; `None` when it has none, or none that can be read.
    pub(crate) fn load(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Writes the record, all or nothing.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), FetchError> {
        let target = folder.join(FILE);
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let new = folder.join(format!("{FILE}.{}-{number}", std::process::id()));
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        text.and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &target))
            .map_err(FetchError::file("write", &target))
    }
}
