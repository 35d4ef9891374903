//! A zip archive of npy arrays: what MXNet 2 writes, and `numpy.savez`.

use std::collections::BTreeMap;

use super::npy;
use crate::contents::Contents;
use crate::error::Fault;
use crate::zip::Entry;

/// Reads all arrays of the archive.
pub(crate) fn read(entries: &BTreeMap<&str, Entry<'_>>, contents: &mut Contents) -> Result<(), Fault> {
    for (file, entry) in entries {
        let Some(name) = file.strip_suffix(".npy") else {
            return Fault::unsupported(format!(
                "it is a zip archive, but neither of PyTorch nor of NumPy: it holds {}",
                file.escape_default()
            ));
        };
        let about = |fault| match fault {
            Fault::Damaged(message) => Fault::Damaged(format!("array {name}: {message}")),
            Fault::Unsupported(message) => Fault::Unsupported(format!("array {name}: {message}")),
            other => other,
        };
        let view = entry.checked().and_then(npy::array).map_err(about)?;
        contents.add(name, &view)?;
    }
    Ok(())
}
