//! Files that are there whole or not at all.

use std::borrow::Cow;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, View};
use tempfile::NamedTempFile;

use crate::error::WeightsError;

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and writing is an error.
    Keep,
    /// It is replaced, at once and whole.
    Replace,
}

/// Writes tensors, each `(name, shape, values)`, to `path` as safetensors of 32-bit floats, with the metadata
/// `format: pt` that Hugging Face transformers asks for.
///
/// The file is written beside its place, made durable, and then given its name. Memory: one tensor's bytes.
///
/// # Errors
/// When the file cannot be written, is there and to be kept, or a shape does not belong to its values.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [i64], &'a [f32])>,
    existing: Existing,
) -> Result<(), WeightsError> {
    let file = tensors_beside(path, tensors)?;
    place(file, path, existing)
}

/// A file beside `path` with the bytes of `path`, as [`write_safetensors`]; it goes unless [`place`]d.
pub(crate) fn tensors_beside<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [i64], &'a [f32])>,
) -> Result<NamedTempFile, WeightsError> {
    let wrong = |message: String| WeightsError::Mismatch { path: path.into(), message };
    let mut views = Vec::new();
    for (name, shape, values) in tensors {
        let sizes = shape.iter().map(|axis| usize::try_from(*axis).ok()).collect::<Option<Vec<_>>>();
        let Some(shape) = sizes.filter(|sizes| count(sizes) == Some(values.len())) else {
            return Err(wrong(format!("{name} has {} values, but shape {shape:?}", values.len())));
        };
        views.push((name, Floats { shape, values }));
    }
    let file = beside(path)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(views, Some(metadata), file.path()).map_err(|e| match e {
        SafeTensorError::IoError(source) => WeightsError::Io { path: path.into(), source },
        other => wrong(format!("cannot be written as safetensors: {other}")),
    })?;
    Ok(file)
}

/// A file beside `path` with this text; it goes unless [`place`]d.
pub(crate) fn text_beside(path: &Path, text: &str) -> Result<NamedTempFile, WeightsError> {
    let file = beside(path)?;
    std::fs::write(file.path(), text).map_err(WeightsError::io(path))?;
    Ok(file)
}

/// Makes a file durable and gives it its name.
pub(crate) fn place(file: NamedTempFile, path: &Path, existing: Existing) -> Result<(), WeightsError> {
    file.as_file().sync_all().map_err(WeightsError::io(path))?;
    let placed = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    placed.map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => WeightsError::Exists { path: path.into() },
        _ => WeightsError::Io { path: path.into(), source: e.error },
    })?;
    // The name is durable when its folder is.
    File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(WeightsError::io(path))
}

/// Elements of a tensor of this shape.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, axis| count.checked_mul(*axis))
}

fn beside(path: &Path) -> Result<NamedTempFile, WeightsError> {
    tempfile::Builder::new()
        .prefix(".partial-")
        // What any program's new file has; the process's mask is still taken off.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder(path))
        .map_err(WeightsError::io(path))
}

/// The folder of a file; of a mere name, the working folder.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Floats that become bytes when it is their turn to be written.
struct Floats<'a> {
    shape: Vec<usize>,
    values: &'a [f32],
}

impl View for Floats<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}
