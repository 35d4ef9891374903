#!/usr/bin/env bash
# Times a training step beside PyTorch DDP over gloo, in turn: MiniLM, 2 processes, global batch 8 x 256 padded, no dropout,
# with the kernels that the math library chooses by itself and with AVX-512 ones. Prints a Markdown table: medians of all
# steps but each run's first five, ratios, and the share of our all-reduce that is hidden behind the backward pass.
#
# Usage: scripts/bench_step.sh PEERS [WORK]
#   PEERS    the folder of hf_squad.py, a Hugging Face fine-tuning program
#   WORK     where its set-up made venv/, minilm/ and squad/ (default: peers-work)
# ROUNDS (2) and STEPS (25) in the environment change how much is measured, PROGRAMS where squadctl and squad-worker are
# (target/release: build them with `cargo build --release --bins` first). Without AVX-512 there is only the first kind.
set -euo pipefail
peers=$(cd "${1:?usage: bench_step.sh PEERS [WORK]}" && pwd)
work=$(cd "${2:-${PEER_WORK:-peers-work}}" && pwd)
repository=$(cd "$(dirname "$0")/.." && pwd)
programs=${PROGRAMS:-$repository/target/release}
rounds=${ROUNDS:-2}
avx512=$(grep -c -m 1 avx512f /proc/cpuinfo || true)
steps=${STEPS:-25}
for needed in "$peers/hf_squad.py" "$work/venv/bin/python" "$work/minilm" "$work/squad" "$programs/squadctl" "$programs/squad-worker"; do
  [ -e "$needed" ] || { echo "bench_step.sh: $needed is not there; see the first lines of $0" >&2; exit 2; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONDONTWRITEBYTECODE=1 SQUAD_WORKER=$programs/squad-worker

cat > "$folder/job.yaml" <<YAML
name: bench-step
model: $work/minilm
head: span
data: {version: "1.1", train: $work/squad/train-v1.1.json, max_seq_length: 256, doc_stride: 128, window: overlap, pad_to_multiple: 256}
train: {steps: $steps, batch_size: 4, learning_rate: 5e-5, weight_decay: 0, bias_correction: true, adam_epsilon: 1e-8, dropout: 0, log_every: 1}
resources: {workers: 2}
output_dir: out
YAML

ours() { # kind, environment...
  local kind=$1; shift
  (cd "$folder" && env "$@" "$programs/squadctl" run job.yaml --set "output_dir=$kind" >"$kind.out" 2>"$kind.err") || { tail -n 20 "$folder/$kind.err" >&2; exit 1; }
  cp "$folder/$kind/metrics.jsonl" "$folder/$kind.$round.jsonl"
}
theirs() { # kind, flags...
  local kind=$1; shift
  (cd "$work" && venv/bin/python "$peers/hf_squad.py" --nproc 2 --model minilm --train squad/train-v1.1.json --no-eval --squad-version 1 \
    --max-seq-length 256 --doc-stride 128 --padding max --batch-size 8 --max-steps "$steps" --dropout 0 --out "$folder/$kind" "$@" \
    >"$folder/$kind.out" 2>"$folder/$kind.err") || { tail -n 20 "$folder/$kind.err" >&2; exit 1; }
  cp "$folder/$kind/losses.jsonl" "$folder/$kind.$round.jsonl"
}
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  ours ours-native SQUAD_MKL_NATIVE=1
  theirs peer-native
  [ "$avx512" = 0 ] && continue
  ours ours-avx512
  theirs peer-avx512 --mkl-avx512
done

"$work/venv/bin/python" - "$folder" "$avx512" <<'PYTHON'
import glob, json, statistics, sys

def lines(kind):
    for path in sorted(glob.glob(f"{sys.argv[1]}/{kind}.*.jsonl")):
        yield from [json.loads(line) for line in open(path)][5:]

def seconds(kind):
    ours = kind.startswith("ours")
    return statistics.median(8 / l["examples_per_second"] if ours else l["seconds"] for l in lines(kind))

def hidden(kind):
    every = list(lines(kind))
    total = sum(l["allreduce_seconds"] for l in every)
    return 1 - min(1, sum(l["allreduce_exposed_seconds"] for l in every) / max(total, 1e-9)), total / len(every)

print("| kernels | Squadron, median step | DDP over gloo | gloo / Squadron | all-reduce a step | hidden |")
print("|---|---|---|---|---|---|")
for name, suffix in [("as MKL chooses", "native")] + [("AVX-512", "avx512")] * int(sys.argv[2]):
    a, b = seconds("ours-" + suffix), seconds("peer-" + suffix)
    share, total = hidden("ours-" + suffix)
    print(f"| {name} | {a:.3f} s | {b:.3f} s | {b / a:.2f} | {1e3 * total:.1f} ms | {100 * share:.0f} % |")
PYTHON
