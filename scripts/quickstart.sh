#!/usr/bin/env bash
# From a fresh checkout to a fine-tuned model. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/quickstart.sh [--again]

Sets up, builds, fetches pretrained weights, fine-tunes them with two workers on the questions of
examples/quickstart, prints EM and F1, and answers one question with the new model. The first time takes about
16 minutes on two cores, most of it the build. Afterwards only what changed is done again; when nothing has,
the earlier result is shown and only the question is answered.

  --again    fine-tune again even if nothing has changed

Exits 1 when the model's F1 is less than twice that of the best rule that never reads the question.
H
}

again=no
for argument in "$@"; do
  case $argument in
    --again) again=yes ;;
    -h|--help) usage; exit 0 ;;
    *) echo "quickstart: unknown option $argument (see --help)" >&2; exit 2 ;;
  esac
done

job=examples/quickstart/job.yaml
train=examples/quickstart/train-v1.1.json
dev=examples/quickstart/dev-v1.1.json
model=models/all-MiniLM-L6-v2
out=out/quickstart
stamp_file=$out/quickstart.stamp
# The model's F1 must be at least this many times the best constant rule's.
factor=2

say() { printf 'quickstart: %s\n' "$*" >&2; }

# step TEXT COMMAND...: says what it does and how long it took.
step() {
  local text=$1 started=$SECONDS status=0
  shift
  say "$text"
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    say "this step failed after $((SECONDS - started)) s (exit code $status): $text"
    exit "$status"
  fi
  say "done in $((SECONDS - started)) s"
}

# value FILE KEY: a figure of a JSON file, or of standard input for -.
value() {
  python3 -c '
import json, sys
with (sys.stdin if sys.argv[1] == "-" else open(sys.argv[1], encoding="utf-8")) as f:
    print(json.load(f)[sys.argv[2]])' "$1" "$2"
}

# stamp: changes when anything does that the result depends on.
stamp() { sha256sum "$job" "$train" "$dev" "$model/model.safetensors" "$squadctl" "$worker" | sha256sum | cut -d' ' -f1; }

fine_tune() { "$squadctl" run "$job"; }

step "1/5 set-up: libtorch into target/libtorch (the first time one to three minutes)" ./scripts/setup.sh
step "2/5 building squadctl and squad-worker (the first time about 8 minutes on two cores)" \
  cargo build --release -p squadctl -p squad-worker --bin squadctl --bin squad-worker
folder=$(cargo metadata --format-version 1 --no-deps | value - target_directory)/release
squadctl=$folder/squadctl
worker=$folder/squad-worker
export SQUADCTL=$squadctl
step "3/5 pretrained weights: all-MiniLM-L6-v2 (the first time up to a minute)" ./scripts/fetch_minilm.sh

if [ "$again" = no ] && [ -f "$out/results.json" ] && [ "$(cat "$stamp_file" 2>/dev/null)" = "$(stamp)" ]; then
  say "4/5 nothing has changed since the last fine-tuning, its result stands (--again repeats it)"
else
  step "4/5 fine-tuning with two workers (about six minutes on two cores)" fine_tune
  stamp >"$stamp_file"
fi

say "5/5 the result"
baseline=$("$squadctl" data baseline --data "$dev" --output json)
rule=$(value - rule <<<"$baseline")
rule_f1=$(value - f1 <<<"$baseline")
em=$(value "$out/results.json" exact)
f1=$(value "$out/results.json" f1)
printf 'EM %.2f, F1 %.2f on %s\n' "$em" "$f1" "$dev"
printf 'best rule that never reads the question (%s): F1 %.2f\n' "$rule" "$rule_f1"
printf 'the model: %s\n' "$out/model"

mapfile -t asked < <(python3 -c '
import json, sys
with open(sys.argv[1], encoding="utf-8") as f:
    paragraph = json.load(f)["data"][7]["paragraphs"][0]
print(paragraph["context"], paragraph["qas"][0]["question"], paragraph["qas"][0]["answers"][0]["text"], sep="\n")' "$dev")
printf '\nText:     %s\nQuestion: %s\nExpected: %s\nAnswer:   ' "${asked[0]}" "${asked[1]}" "${asked[2]}"
"$squadctl" predict --model "$out/model" --question "${asked[1]}" --context "${asked[0]}"

if ! python3 -c 'import sys; f1, rule, factor = map(float, sys.argv[1:]); sys.exit(f1 < factor * rule)' \
  "$f1" "$rule_f1" "$factor"; then
  say "F1 is not $factor times the rule's: the model has not learnt its task; $out/train.log says how it went"
  exit 1
fi
