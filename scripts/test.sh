#!/usr/bin/env bash
# Every check of the project. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/test.sh

Sets up, then runs every check: formatting, lints, documentation, unit and end-to-end tests. The first time takes
about half an hour on two cores, most of it the build; afterwards ten minutes. Tests run under cargo-nextest where it is
installed, which ends a test that hangs, else under cargo test.
H
}

case ${1:-} in
  '') ;;
  -h|--help) usage; exit 0 ;;
  *) echo "test: unknown option $1 (see --help)" >&2; exit 2 ;;
esac

say() { printf 'test: %s\n' "$*" >&2; }
begun=$SECONDS

# stage NAME COMMAND...: ends the whole run where it fails.
stage() {
  local name=$1 started=$SECONDS status=0
  shift
  say "$name: $*"
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    say "$name FAILED after $((SECONDS - started)) s (exit code $status)"
    exit "$status"
  fi
  say "$name: ok, $((SECONDS - started)) s"
}

stage set-up ./scripts/setup.sh
stage weights ./scripts/fetch_minilm.sh
stage formatting cargo fmt --all --check
# What may come into the dependency tree. Known holes are in a database on the network, the rest is in deny.toml.
if cargo deny --version >/dev/null 2>&1; then
  stage dependencies cargo deny check bans licenses sources
  if cargo deny fetch db >/dev/null 2>&1; then
    stage advisories cargo deny check --disable-fetch advisories
  else
    say 'advisories SKIPPED: their database cannot be reached'
  fi
else
  say 'dependencies SKIPPED: cargo-deny is not installed (cargo install cargo-deny --locked)'
fi
stage lints cargo clippy --workspace --all-targets -- -D warnings
# End-to-end tests start the real programs, which a test build alone does not make.
stage build cargo build --workspace --bins
stage documentation cargo test --workspace --doc
if cargo nextest --version >/dev/null 2>&1; then
  stage tests cargo nextest run --workspace
else
  stage tests cargo test --workspace --lib --bins --tests
fi
stage kubernetes ./scripts/check_kubernetes.sh
stage book ./scripts/book.sh --no-install
say "everything passed in $((SECONDS - begun)) s"
