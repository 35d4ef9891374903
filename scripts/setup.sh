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

cuda=no keep=no
for argument in "$@"; do
  case $argument in
    --cuda) cuda=yes ;;
    --keep-downloads) keep=yes ;;
    -h|--help) usage; exit 0 ;;
    *) echo "setup: unknown option $argument (see --help)" >&2; exit 2 ;;
  esac
done

say() { printf 'setup: %s\n' "$*" >&2; }
need() { command -v "$1" >/dev/null 2>&1 || { say "$1 is missing: $2"; exit 1; }; }
need cargo "install a Rust toolchain (rustup.rs), 1.90 or later"
need c++ "install a C++ compiler (g++ or clang)"
need python3 "install Python 3 with pip; it only downloads and unpacks"
python3 -m pip --version >/dev/null 2>&1 || { say "python3 has no pip: install your system's python3-pip"; exit 1; }
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  say "libtorch 2.11.0 is pinned for Linux x86_64 only, this is $(uname -sm)"; exit 1
fi

downloads=target/downloads
mkdir -p "$downloads"

# fetch REQUIREMENTS: the wheels it names, verified against its checksums (pip refuses any other).
fetch() {
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_12_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux2010_x86_64 \
    --dest "$downloads" --requirement "$1"
}

# stamp REQUIREMENTS: changes when the pinned versions or the unpacking change.
stamp() { cat "$1" scripts/unpack_libtorch.py | sha256sum | cut -d' ' -f1; }

# install REQUIREMENTS FOLDER KIND: fetch and unpack, unless FOLDER holds just that already.
install() {
  local requirements=$1 folder=$2 kind=$3 started=$SECONDS
  if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$(stamp "$requirements")" ]; then
    say "$folder is up to date"
    return
  fi
  say "fetching $kind into $folder (one to three minutes)"
  fetch "$requirements"
  rm -rf "$folder.new"
  python3 scripts/unpack_libtorch.py "$kind" "$downloads" "$folder.new"
  stamp "$requirements" >"$folder.new/.stamp"
  rm -rf "$folder"
  mv "$folder.new" "$folder"
  say "$folder is ready ($((SECONDS - started)) s)"
}

install scripts/libtorch.requirements.txt target/libtorch cpu
if [ $cuda = yes ]; then
  install scripts/libtorch-cuda.requirements.txt target/libtorch-cuda cuda
fi
if [ $keep = no ]; then rm -rf "$downloads"; fi
