//! Links libtorch as [`link_libtorch.rs`] says, and exports the symbol of `src/kernels.rs`.
#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

#[path = "link_libtorch.rs"]
mod link_libtorch;

fn main() {
    link_libtorch::main();
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=mkl_serv_intel_cpu_true");
}
