//! Weight files, read and converted without libtorch.
//!
//! [`read`] looks at a file's first bytes, not at its name, and gives every format the same form: [`Tensors`].
//! Nothing that a file says is executed, and what a file says about sizes is believed only as far as its bytes
//! bear it out.
//!
//! ```text
//! model.safetensors | *.index.json | pytorch_model.bin | *.params ─► read ─► Tensors ─► write_safetensors
//! *.params + model.yml ─► gluon::convert ─► config.json + model.safetensors
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `format` | which format some bytes are |
//! | `safe`, `index` | safetensors; folders whose weights are spread over several files |
//! | `torch` | PyTorch's files: the zip and the older form, and a pickle reader that runs nothing |
//! | `params` | files of the replaced program: npy arrays in a zip archive, and MXNet's list of arrays |
//! | `zip`, `cursor`, `view` | stored zip entries, bounded reading, strided views to floats |
//! | [`mod@write`] | safetensors, written whole or not at all |
//! | [`gluon`] | the replaced program's parameter names and configurations as Hugging Face's |
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod contents;
mod cursor;
pub mod error;
mod format;
#[cfg(test)]
mod fuzz;
pub mod gluon;
mod index;
mod params;
mod safe;
mod torch;
mod view;
pub mod write;
mod zip;

use contents::Contents;
use error::Fault;
pub use error::WeightsError;
use format::Format;
pub use gluon::Family;
pub use write::{Existing, write_safetensors};

/// Tensors by name: shape, outermost axis first, and values in that order as 32-bit floats.
pub type Tensors = BTreeMap<String, (Vec<i64>, Vec<f32>)>;

/// Where a folder's weights are looked for, the first that is there being read.
const NAMES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Reads all tensors of a weights file of any known format, which its content tells.
///
/// Half precision, bfloat16 and double precision become 32-bit floats. Tensors of whole numbers, such as
/// `position_ids`, are left out. An index is read together with the files that it names. Memory: the file once,
/// and the floats.
///
/// # Errors
/// When the file cannot be read, is damaged, asks for code to be run, or is of no format known here.
pub fn read(path: &Path) -> Result<Tensors, WeightsError> {
    let bytes = std::fs::read(path).map_err(WeightsError::io(path))?;
    let contents = match format::recognise(&bytes) {
        Some(Format::Index) => index::read(path, &bytes),
        format => whole(format, &bytes).map_err(Fault::of(path)),
    }?;
    Ok(contents.tensors)
}

/// Reads all tensors of a file that holds them itself, given as its bytes. See [`read`].
///
/// # Errors
/// When they are damaged, ask for code to be run, or are of no format known here.
pub fn read_bytes(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let contents = whole(format::recognise(bytes), bytes).map_err(Fault::of(Path::new("the bytes")))?;
    Ok(contents.tensors)
}

/// Reads the weights of a folder in Hugging Face layout: `model.safetensors`, else its index, else
/// `pytorch_model.bin`, else its index. Gives back which file it was.
///
/// # Errors
/// When the folder has none of them, or as [`read`].
pub fn read_folder(folder: &Path) -> Result<(Tensors, PathBuf), WeightsError> {
    let path = NAMES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| WeightsError::NoWeights { folder: folder.into(), names: NAMES.join(", ") })?;
    Ok((read(&path)?, path))
}

/// Reads a file that holds its tensors itself.
fn whole(format: Option<Format>, bytes: &[u8]) -> Result<Contents, Fault> {
    let mut contents = Contents::of_file(bytes.len());
    match format {
        Some(Format::Safetensors) => safe::read(bytes, &mut contents)?,
        Some(Format::Pickle) => torch::older::read(bytes, &mut contents)?,
        Some(Format::ArrayList) => params::list::read(bytes, &mut contents)?,
        Some(Format::Zip) => {
            let entries = zip::entries(bytes)?;
            if torch::archive::holds_weights(&entries) {
                torch::archive::read(&entries, &mut contents)?;
            } else {
                params::archive::read(&entries, &mut contents)?;
            }
        }
        Some(Format::Pointer) => {
            return Err(Fault::Unsupported(
                "it is a Git LFS pointer, which stands for the file; fetch the file itself (git lfs pull)"
                    .into(),
            ));
        }
        Some(Format::Index) | None => return Err(Fault::Unknown),
    }
    Ok(contents)
}
