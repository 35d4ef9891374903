#!/usr/bin/env bash
# Builds the documentation as a book. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

# The one version that the book is built with.
version=0.5.4

usage() {
  cat <<H
usage: scripts/book.sh [--no-install]

Builds the pages of docs/ into target/book (open target/book/index.html). Takes mdbook from the PATH if it is of
version $version, else installs that into target/tools, which takes some minutes.

  --no-install   where mdbook is not there, say so and do nothing
H
}

install=yes
for argument in "$@"; do
  case $argument in
    --no-install) install=no ;;
    -h|--help) usage; exit 0 ;;
    *) echo "book: unknown option $argument (see --help)" >&2; exit 2 ;;
  esac
done

say() { printf 'book: %s\n' "$*" >&2; }
# fits PROGRAM: whether it is the mdbook that is wanted.
fits() { [ "$("$1" --version 2>/dev/null)" = "mdbook v$version" ]; }

mdbook=mdbook
fits "$mdbook" || mdbook=target/tools/bin/mdbook
if ! fits "$mdbook"; then
  if [ $install = no ]; then
    say "SKIPPED: mdbook $version is not installed (scripts/book.sh installs it)"
    exit 0
  fi
  say "installing mdbook $version into target/tools"
  cargo install mdbook --version "$version" --locked --no-default-features --features search --root target/tools
fi
"$mdbook" build
say "target/book/index.html is ready"
