#!/usr/bin/env bash
# Brings libtorch 2.11.0. See --help.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<'H'
usage: get_libtorch.sh [--into FOLDER] [--cuda] [--keep-downloads]

Brings libtorch 2.11.0 into FOLDER/libtorch (about 520 MiB to download, 530 MiB on disk; one to three minutes). Every
download is pinned by version and SHA-256. Runs without root; run again, it ends at once.

  --into FOLDER      where libtorch/ is made; without it, in an unpacked release archive, beside its bin/
  --cuda             also the libraries of the CUDA path, in FOLDER/libtorch-cuda (about 2.3 GiB more to download)
  --keep-downloads   keep the wheels in FOLDER/downloads

Needs python3 with pip (with its configured index), which only downloads.
H
}

# In an archive this file is in share/squadron.
into=$here/../.. cuda=no keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --into) [ $# -gt 1 ] || { echo "get_libtorch: --into needs a folder (see --help)" >&2; exit 2; }
      into=$2; shift ;;
    --cuda) cuda=yes ;;
    --keep-downloads) keep=yes ;;
    -h|--help) usage; exit 0 ;;
    *) echo "get_libtorch: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

say() { printf 'libtorch: %s\n' "$*" >&2; }
command -v python3 >/dev/null 2>&1 || { say "python3 is missing: install Python 3 with pip; it only downloads and unpacks"; exit 1; }
python3 -m pip --version >/dev/null 2>&1 || { say "python3 has no pip: install your system's python3-pip"; exit 1; }
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  say "libtorch 2.11.0 is pinned for Linux x86_64 only, this is $(uname -sm)"; exit 1
fi

mkdir -p "$into"
into=$(cd "$into" && pwd)
downloads=$into/downloads
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
stamp() { cat "$1" "$here/unpack_libtorch.py" | sha256sum | cut -d' ' -f1; }

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
  python3 "$here/unpack_libtorch.py" "$kind" "$downloads" "$folder.new"
  stamp "$requirements" >"$folder.new/.stamp"
  rm -rf "$folder"
  mv "$folder.new" "$folder"
  say "$folder is ready ($((SECONDS - started)) s)"
}

install "$here/libtorch.requirements.txt" "$into/libtorch" cpu
if [ $cuda = yes ]; then
  install "$here/libtorch-cuda.requirements.txt" "$into/libtorch-cuda" cuda
fi
if [ $keep = no ]; then rm -rf "$downloads"; fi
