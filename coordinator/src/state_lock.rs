//! One coordinator for each state folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::config::StoreLocation;
use crate::store::StoreError;

/// Name of the lock file, beside the store's.
const FILE: &str = "coordinator.lock";

/// The right to a state folder. The system takes it back when the process ends, however it ends; the file stays.
pub(crate) struct StateLock {
    _held: Option<File>,
}

impl StateLock {
    /// Takes the folder of a store, which is made where it is not there. A store in memory needs no lock.
    ///
    /// # Errors
    /// When another coordinator has it, or the file cannot be made.
    pub(crate) fn take(location: &StoreLocation) -> Result<Self, StoreError> {
        let StoreLocation::File(store) = location else { return Ok(Self { _held: None }) };
        let folder = store.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _held: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Taken(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let location = StoreLocation::File(folder.path().join("state/jobs.sqlite"));
        let held = StateLock::take(&location).unwrap();
        let refusal = StateLock::take(&location).err().unwrap().to_string();
        assert!(refusal.contains(&folder.path().join("state").display().to_string()), "{refusal}");
        drop(held);
        StateLock::take(&location).unwrap();
        StateLock::take(&StoreLocation::Memory).unwrap();
    }
}
