#!/usr/bin/env bash
# Packs the programs for other machines. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/package.sh [--profile release|dev] [--out FOLDER] [--no-build]

Builds the programs and packs them, with manual pages, shell completions, documentation, examples and the licences of
what is built in, into FOLDER/squadron-VERSION-x86_64-linux.tar.gz, with FOLDER/SHA256SUMS beside it. The same commit and
the same programs give the same archive, to the byte. libtorch is not in it: get_libtorch.sh, which is, brings it.

  --profile PROFILE   what is built [default: release]
  --out FOLDER        where the archive goes [default: target/package]
  --no-build          pack what was built before

SOURCE_DATE_EPOCH is the time of all files in it [default: that of the commit].
H
}

profile=release out=target/package build=yes
while [ $# -gt 0 ]; do
  case $1 in
    --profile|--out) [ $# -gt 1 ] || { echo "package: $1 needs a value (see --help)" >&2; exit 2; } ;;&
    --profile) profile=$2; shift ;;
    --out) out=$2; shift ;;
    --no-build) build=no ;;
    -h|--help) usage; exit 0 ;;
    *) echo "package: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done
case $profile in
  release) folder=release compression=-9 ;;
  dev) folder=debug compression=-1 ;;
  *) echo "package: --profile is release or dev, not $profile" >&2; exit 2 ;;
esac

say() { printf 'package: %s\n' "$*" >&2; }
started=$SECONDS
if [ $build = yes ]; then
  ./scripts/setup.sh
  cargo build --locked --profile "$profile" --workspace --bins
fi
metadata() {
  cargo metadata --locked --offline --format-version 1 --no-deps | python3 -c "import json, sys; print(json.load(sys.stdin)$1)"
}
built=$(metadata '["target_directory"]')/$folder
version=$(metadata '["packages"][0]["version"]')
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
name=squadron-$version-x86_64-linux
for program in squadctl squad-coordinator squad-worker; do
  [ -x "$built/$program" ] || { say "$built/$program is not built"; exit 1; }
done

mkdir -p "$out"
stage=$(mktemp -d "$out/.stage-XXXXXX")
trap 'rm -rf "$stage"' EXIT
root=$stage/$name
mkdir -p "$root/bin" "$root/lib/squadron" "$root/share/squadron"

# Programs. The worker's own is started by a script that finds libtorch; squadctl is to be beside both.
cp "$built/squadctl" "$built/squad-coordinator" "$root/bin/"
cp "$built/squad-worker" "$root/lib/squadron/"
cp deploy/archive/squad-worker "$root/bin/"
ln -s ../../bin/squadctl "$root/lib/squadron/squadctl"
strip "$root/bin/squadctl" "$root/bin/squad-coordinator" "$root/lib/squadron/squad-worker"
# The folder of libtorch on this machine means nothing elsewhere.
python3 scripts/drop_run_path.py "$root/lib/squadron/squad-worker"
cp scripts/get_libtorch.sh scripts/unpack_libtorch.py scripts/libtorch.requirements.txt scripts/libtorch-cuda.requirements.txt \
  "$root/share/squadron/"

# What the programs write about themselves.
man=$root/share/man/man1
mkdir -p "$man"
for program in squadctl squad-coordinator squad-worker; do
  LIBTORCH=${LIBTORCH:-$PWD/target/libtorch} "$root/bin/$program" man "$man"
done
completions() {
  mkdir -p "$root/share/$2"
  "$root/bin/squadctl" completions "$1" >"$root/share/$2/$3"
}
completions bash bash-completion/completions squadctl
completions zsh zsh/site-functions _squadctl
completions fish fish/vendor_completions.d squadctl.fish

# Words, examples, and what clusters take.
cp README.md CHANGELOG.md ARCHITECTURE.md CONTRIBUTING.md LICENSE NOTICE "$root/"
cp -r docs examples deploy "$root/"
python3 scripts/licences.py squadctl squad-coordinator squad-worker >"$root/THIRD-PARTY.txt"

archive=$out/$name.tar.gz
tar --create --directory "$stage" --format gnu --sort name --mtime "@$epoch" --owner 0 --group 0 --numeric-owner \
  --mode 'u=rwX,go=rX' "$name" | gzip --no-name $compression >"$archive.new"
mv "$archive.new" "$archive"
(cd "$out" && sha256sum "$name.tar.gz" >SHA256SUMS)
say "$archive: $(du -h "$archive" | cut -f1), $((SECONDS - started)) s"
