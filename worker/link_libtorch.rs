//! Build script of every crate whose binaries or tests link libtorch.
//!
//! Binaries carry the folder of libtorch as their run path, so they start without LD_LIBRARY_PATH.
//! `$ORIGIN/../libtorch/lib` comes first: it is right for `target/release/squad-worker` and for an
//! installed `bin/` with a `libtorch/` beside it. The folder that was linked comes last.
#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

pub(crate) fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    for folder in ["$ORIGIN/../libtorch/lib", "$ORIGIN/../../libtorch/lib"] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    if let Ok(folder) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}/lib");
    }
}
