//! PyTorch's present form: a zip archive with a pickle, `data.pkl`, and a file `data/KEY` for each storage.

use std::collections::BTreeMap;

use super::pickle;
use crate::contents::Contents;
use crate::cursor::Cursor;
use crate::error::Fault;
use crate::zip::Entry;

const PICKLE: &str = "data.pkl";

/// Whether an archive is PyTorch's.
pub(crate) fn holds_weights(entries: &BTreeMap<&str, Entry<'_>>) -> bool {
    folder(entries).is_some()
}

/// Reads all tensors of the archive's state dict.
pub(crate) fn read(entries: &BTreeMap<&str, Entry<'_>>, contents: &mut Contents) -> Result<(), Fault> {
    let Some((folder, pickle)) = folder(entries) else { return Err(Fault::Unknown) };
    if let Some(order) = entries.get(format!("{folder}byteorder").as_str())
        && order.data != b"little"
    {
        return Fault::unsupported(
            "its numbers are big-endian; load it with PyTorch on a little-endian machine and save it again",
        );
    }
    let built = pickle::run(&mut Cursor::new(pickle.data))?;
    for (name, tensor) in built.objects.tensors(built.value)? {
        let storage = tensor.storage;
        let data = entries.get(format!("{folder}data/{}", storage.key).as_str()).map(|entry| entry.data);
        let size = usize::try_from(storage.bytes()).unwrap_or(usize::MAX);
        let Some(data) = data.and_then(|data| data.get(..size)) else {
            return Fault::damaged(format!(
                "tensor {name}: storage {} with its {} bytes is not there",
                storage.key.escape_default(),
                storage.bytes()
            ));
        };
        contents.add(name, &tensor.view(data))?;
    }
    Ok(())
}

/// The folder that everything is in, which has the name that the file once had, and the pickle.
fn folder<'a>(entries: &BTreeMap<&'a str, Entry<'a>>) -> Option<(&'a str, Entry<'a>)> {
    entries
        .iter()
        .filter_map(|(name, entry)| Some((name.strip_suffix(PICKLE)?, *entry)))
        .find(|(folder, _)| folder.is_empty() || (folder.ends_with('/') && folder.matches('/').count() == 1))
}
