//! Loads libtorch's CUDA libraries into this process.
#![allow(unsafe_code, reason = "loading a library runs its initialisers")]

use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::error::DeviceError;
use crate::libraries::CUDA;

/// Loads `libtorch_cuda.so` of `folder` and everything that it needs, for the rest of the process's life. It must come
/// before libtorch is asked for any device. Needs no driver.
///
/// # Errors
/// The dynamic loader's words.
pub fn load(folder: &Path) -> Result<(), DeviceError> {
    let path = folder.join(CUDA);
    // SAFETY: the library's initialisers register kernels and hooks with the libtorch of this process, whose threads do
    // not compute yet; that it belongs to this libtorch, the loader finds out by its symbols, all of which it binds now.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| {
        // The cause has what the loader said; the error itself only that it said something.
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        DeviceError::Load { path: path.clone(), message: cause }
    })?;
    // What it registered is used until the process ends.
    std::mem::forget(library);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CUDA), "not a library").unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("libtorch_cuda.so cannot be loaded") && error.contains("setup.sh --cuda"),
            "{error}"
        );
    }
}
