//! Where libtorch's CUDA libraries are looked for.

use std::path::{Path, PathBuf};

use crate::error::DeviceError;

/// The library that brings all others with it.
pub(crate) const CUDA: &str = "libtorch_cuda.so";

/// The libtorch that the CPU half belongs to.
const VERSION: &str = "2.11.0";

/// Folders that may hold libtorch's CUDA libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The one that the user named; nothing else is looked at then.
    pub named: Option<PathBuf>,
    /// The others, best first.
    pub usual: Vec<PathBuf>,
}

impl Places {
    /// The places of this process: `SQUAD_LIBTORCH_CUDA`; beside the libtorch that is loaded (a Python wheel's has both
    /// halves in one folder), `libtorch-cuda` where setup.sh puts it and beside an installed `bin/`; the wheels of the
    /// Python environment in use and of the system.
    #[must_use]
    pub fn of_process() -> Self {
        let named =
            std::env::var_os("SQUAD_LIBTORCH_CUDA").filter(|name| !name.is_empty()).map(PathBuf::from);
        let mut usual = Vec::new();
        if let Some(cpu) = loaded_from("libtorch_cpu.so").and_then(|file| file.parent().map(Path::to_owned)) {
            usual.push(cpu.clone());
            // From libtorch/lib to the folder beside libtorch.
            usual.extend(cpu.ancestors().nth(2).map(|above| above.join("libtorch-cuda")));
        }
        if let Ok(program) = std::env::current_exe() {
            usual.extend(program.ancestors().skip(1).take(3).map(|above| above.join("libtorch-cuda")));
        }
        let environment = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
        for root in environment.into_iter().chain([PathBuf::from("/usr/local"), PathBuf::from("/usr")]) {
            usual.extend(wheels(&root.join("lib")));
        }
        let mut seen = Vec::new();
        usual.retain(|place| {
            let new = !seen.contains(place);
            seen.push(place.clone());
            new
        });
        Self { named, usual }
    }

    /// The first place that has them.
    ///
    /// # Errors
    /// When none has, or not the one that the user named.
    pub fn find(&self) -> Result<PathBuf, DeviceError> {
        if let Some(named) = &self.named {
            let there = named.join(CUDA).is_file();
            return if there { Ok(named.clone()) } else { Err(DeviceError::NotThere(named.clone())) };
        }
        let found = self.usual.iter().find(|place| place.join(CUDA).is_file());
        found.cloned().ok_or_else(|| DeviceError::NoLibraries { searched: self.usual.clone() })
    }

    /// Files of this name below the place that has the CUDA libraries, and where wheels keep those of NVIDIA: for
    /// libraries that are loaded by themselves, such as NCCL's.
    #[must_use]
    pub fn beside(&self, folder: &str, name: &str) -> Vec<PathBuf> {
        let all = self.named.iter().chain(&self.usual);
        // A wheel's are at site-packages/nvidia/FOLDER/lib, beside site-packages/torch/lib.
        let wheels = |place: &PathBuf| {
            place.ancestors().nth(2).map(|site| site.join("nvidia").join(folder).join("lib").join(name))
        };
        let files = all.flat_map(|place| std::iter::once(place.join(name)).chain(wheels(place)));
        files.filter(|file| file.is_file()).collect()
    }
}

/// `lib/pythonX/{site,dist}-packages/torch/lib` below `lib`, of the version that fits.
fn wheels(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(lib) else { return Vec::new() };
    let mut pythons: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
        .collect();
    pythons.sort();
    let packages =
        pythons.iter().flat_map(|python| ["site-packages", "dist-packages"].map(|p| python.join(p)));
    let fits = |torch: &PathBuf| {
        let text = std::fs::read_to_string(torch.join("version.py")).unwrap_or_default();
        text.contains(&format!("'{VERSION}")) || text.contains(&format!("\"{VERSION}"))
    };
    packages.map(|packages| packages.join("torch")).filter(fits).map(|torch| torch.join("lib")).collect()
}

/// The file that this process has loaded a library of this name from.
#[must_use]
pub fn loaded_from(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    files.find(|file| file.file_name().is_some_and(|found| found == name)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cuda(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(CUDA), "").unwrap();
    }

    #[test]
    fn the_named_folder_alone_counts_where_it_is_named() {
        let place = tempfile::tempdir().unwrap();
        let (named, usual) = (place.path().join("named"), place.path().join("usual"));
        with_cuda(&usual);
        let places = Places { named: Some(named.clone()), usual: vec![usual.clone()] };
        assert_eq!(places.find(), Err(DeviceError::NotThere(named.clone())));
        with_cuda(&named);
        assert_eq!(places.find(), Ok(named));
        assert_eq!(Places { named: None, usual: vec![usual.clone()] }.find(), Ok(usual));
    }

    #[test]
    fn the_error_lists_where_it_looked() {
        let places = Places { named: None, usual: vec!["/no/where".into(), "/else/where".into()] };
        let text = places.find().unwrap_err().to_string();
        assert!(text.contains("/no/where, /else/where"), "{text}");
    }

    #[test]
    fn a_wheel_of_another_version_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        for (python, version) in [("python3.11", "2.10.1+cu128"), ("python3.12", "2.11.0+cu130")] {
            let torch = place.path().join(python).join("site-packages/torch");
            with_cuda(&torch.join("lib"));
            std::fs::write(torch.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
        }
        assert_eq!(wheels(place.path()), [place.path().join("python3.12/site-packages/torch/lib")]);
    }

    #[test]
    fn nccl_is_found_flat_and_in_wheels() {
        let place = tempfile::tempdir().unwrap();
        let (flat, torch) = (place.path().join("flat"), place.path().join("site/torch/lib"));
        let wheel = place.path().join("site/nvidia/nccl/lib");
        for folder in [&flat, &wheel] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("libnccl.so.2"), "").unwrap();
        }
        let places = Places { named: None, usual: vec![flat.clone(), torch] };
        let found = places.beside("nccl", "libnccl.so.2");
        assert_eq!(found, [flat.join("libnccl.so.2"), wheel.join("libnccl.so.2")]);
    }

    #[test]
    fn what_is_loaded_is_found() {
        assert!(loaded_from("libc.so.6").is_some_and(|file| file.is_file()));
        assert_eq!(loaded_from("libnothing.so.7"), None);
    }
}
