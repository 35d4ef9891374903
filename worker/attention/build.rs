//! Compiles the node of libtorch's graph, and links libtorch as `../link_libtorch.rs` says.
#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::path::PathBuf;

#[path = "../link_libtorch.rs"]
mod link_libtorch;

fn main() {
    link_libtorch::main();
    println!("cargo:rerun-if-changed=src/node.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // The folder in which torch-sys, too, finds them: .cargo/config.toml names it.
    let libtorch = PathBuf::from(std::env::var_os("LIBTORCH").unwrap_or_else(|| "/usr".into()));
    let include = libtorch.join("include");
    // Another libtorch in the same place has other headers.
    println!("cargo:rerun-if-changed={}", include.join("torch/headeronly/version.h").display());
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .includes([include.join("torch/csrc/api/include"), include])
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        // The warnings of libtorch's headers are not ours.
        .warnings(false)
        .file("src/node.cpp")
        .compile("squad_attention_node");
}
