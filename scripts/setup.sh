#!/usr/bin/env bash
# Brings libtorch 2.11.0 into target/libtorch. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/setup.sh [--cuda] [--keep-downloads]

Brings what the build needs and cargo cannot bring: libtorch 2.11.0 in target/libtorch
(about 520 MiB to download, 530 MiB on disk; one to three minutes). Every download is pinned
by version and SHA-256. Runs without root; run again, it ends at once.

  --cuda             also the libraries of the CUDA path, in target/libtorch-cuda
                     (about 2.3 GiB more to download)
  --keep-downloads   keep the wheels in target/downloads

Needs: a Rust toolchain, a C++ compiler, python3 with pip (with its configured index).
H
}

for argument in "$@"; do
  case $argument in
    --cuda|--keep-downloads) ;;
    -h|--help) usage; exit 0 ;;
    *) echo "setup: unknown option $argument (see --help)" >&2; exit 2 ;;
  esac
done

need() { command -v "$1" >/dev/null 2>&1 || { echo "setup: $1 is missing: $2" >&2; exit 1; }; }
need cargo "install a Rust toolchain (rustup.rs), 1.90 or later"
need c++ "install a C++ compiler (g++ or clang)"
exec ./scripts/get_libtorch.sh --into target "$@"
