#!/usr/bin/env bash
# Everything that needs a GPU, in one call. See --help.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/gpu_check.sh --pack      on a machine that can build: programs into target/gpu-check
       scripts/gpu_check.sh [NAME...]   on a machine with a GPU: run all checks, or those whose names hold NAME

Packing builds squad-worker, squadctl and the GPU tests of squad-train and puts them, stripped, into target/gpu-check/programs.tar.gz
(about 25 MiB), which the checks unpack beside it. With that folder carried along, a machine with a GPU needs neither a compiler nor cargo; it needs the
NVIDIA driver (580 or later) and libtorch 2.11.0 with its CUDA libraries: a Python with torch 2.11.0+cu130, or
target/libtorch and target/libtorch-cuda from scripts/setup.sh --cuda. The whole takes less than 8 minutes:

  here:   scripts/gpu_check.sh --pack
  there:  scripts/gpu_check.sh            # carry target/gpu-check, and models/ for the fine-tune

Each check prints PASS, FAIL or SKIP with its seconds; figures are lines that begin with two spaces. The exit code is
0 only if none failed. Nothing passes without a GPU.

Environment: GPU_CHECK_SECONDS (60) for each check; SQUAD_LIBTORCH_CUDA, the folder of libtorch_cuda.so.
H
}

pack=target/gpu-check
say() { printf 'gpu_check: %s\n' "$*" >&2; }

build() {
  set -e
  cargo build --workspace --bins
  local test
  test=$(cargo test --workspace --test gpu --no-run --message-format=json |
    python3 -c 'import json,sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "gpu":
        print(message["executable"])')
  rm -rf "$pack"; mkdir -p "$pack"
  cp "$test" "$pack/gpu-tests"
  cp target/debug/squad-worker target/debug/squadctl "$pack/"
  strip "$pack"/*
  tar -czf "$pack.tar.gz" -C "$pack" .
  rm -r "$pack"; mkdir "$pack"; mv "$pack.tar.gz" "$pack/programs.tar.gz"
  du -sh "$pack" >&2
}

case ${1:-} in
  -h|--help) usage; exit 0 ;;
  --pack) build; exit ;;
  -*) say "unknown option $1 (see --help)"; exit 2 ;;
esac

[ -f "$pack/programs.tar.gz" ] && tar -xzf "$pack/programs.tar.gz" -C "$pack"
if [ ! -x "$pack/gpu-tests" ]; then
  say "$pack is not there: run scripts/gpu_check.sh --pack where cargo is, and carry the folder"; exit 2
fi

# libtorch: the one of Python's torch where it is there, else setup.sh's.
torch=$(python3 -c 'import importlib.util as u, os; print(os.path.join(os.path.dirname(u.find_spec("torch").origin), "lib"))' 2>/dev/null || true)
if [ -n "$torch" ] && [ -f "$torch/libtorch_cuda.so" ]; then
  export LD_LIBRARY_PATH="$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" SQUAD_LIBTORCH_CUDA="${SQUAD_LIBTORCH_CUDA:-$torch}"
elif [ -f target/libtorch/lib/libtorch_cpu.so ]; then
  export LD_LIBRARY_PATH="$PWD/target/libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  [ -d target/libtorch-cuda ] && export SQUAD_LIBTORCH_CUDA="${SQUAD_LIBTORCH_CUDA:-$PWD/target/libtorch-cuda}"
else
  say "there is no libtorch: neither a Python with torch nor target/libtorch"; exit 2
fi
export OMP_WAIT_POLICY=PASSIVE SQUAD_WORKER="$PWD/$pack/squad-worker"

log=$(mktemp -d); trap 'rm -rf "$log"' EXIT
failed=0 passed=0
limit=${GPU_CHECK_SECONDS:-60}
wanted=("$@")

chosen() {
  [ ${#wanted[@]} -eq 0 ] && return 0
  local name
  for name in "${wanted[@]}"; do case $1 in *"$name"*) return 0 ;; esac; done
  return 1
}

# check NAME COMMAND...: runs it within the limit and tells how it ended.
check() {
  local name=$1 started=$SECONDS; shift
  chosen "$name" || return 0
  if timeout --kill-after=5 "$limit" "$@" >"$log/out" 2>&1; then
    passed=$((passed + 1)); printf 'PASS  %s (%s s)\n' "$name" $((SECONDS - started))
    grep -E 'differ|loss|examples/s|after [0-9]|NCCL|GB/s' "$log/out" | sed 's/^/  /' | head -20
  else
    failed=$((failed + 1)); printf 'FAIL  %s (%s s)\n' "$name" $((SECONDS - started))
    sed 's/^/  | /' "$log/out" | tail -25
  fi
}

# The machine itself: without a GPU nothing below can pass.
probe() {
  "$pack/squad-worker" probe || return 1
  "$pack/squad-worker" probe --output json | python3 -c '
import json, sys
machine = json.load(sys.stdin)
sys.exit(machine["cuda"]["problem"] or machine["nccl"]["problem"] or 0)'
}
export -f probe; export pack
printf 'squad-worker probe:\n'; "$pack/squad-worker" probe | sed 's/^/  /'
check probe bash -c probe
if [ $failed -gt 0 ]; then
  say "this machine cannot compute on a GPU; nothing else was run"; exit 1
fi

for test in steps_on_a_gpu_are_the_cpus half_formats_are_near_32_bits_and_an_overflow_is_survived \
  dropout_follows_from_the_seed_also_when_recomputed a_run_on_a_gpu_is_evaluated_and_gone_on_with_on_the_cpu \
  nccl_alone_changes_nothing two_ranks_by_nccl_sum_as_the_ring_does a_rank_whose_peer_dies_ends_with_an_error bench_steps; do
  check "$test" "$pack/gpu-tests" --exact "$test" --ignored --nocapture
done

# All-reduce between all GPUs of the machine; with one it is NCCL's own cost.
check bench_allreduce_nccl "$pack/squadctl" bench allreduce --np "$(nvidia-smi -L | wc -l)" --transport nccl \
  --sizes 4KiB..64MiB --seconds 0.2

# The same job on both devices, by the programs that users run.
tune() {
  local out
  for device in cpu cuda; do
    out=$log/$device; mkdir -p "$out"
    cat >"$out/job.yaml" <<Y
name: gpu-check
model: $PWD/models/all-MiniLM-L6-v2
head: span
data: {version: "1.1", train: $PWD/examples/quickstart/train-v1.1.json, dev: $PWD/examples/quickstart/dev-v1.1.json, max_seq_length: 128, window: overlap}
train: {steps: 20, batch_size: 8, learning_rate: 1.0e-4, dropout: 0, log_every: 1}
resources: {device: $device}
output_dir: $out/out
Y
    "$pack/squadctl" run "$out/job.yaml" --output json >"$out/results.json" || return 1
  done
  python3 - "$log" <<'P'
import json, sys
a, b = (json.load(open(f"{sys.argv[1]}/{d}/out/results.json")) for d in ("cpu", "cuda"))
print("loss", a["train"]["final_loss"], "on the CPU,", b["train"]["final_loss"], "on the GPU; F1", a["f1"], b["f1"])
print(b["train"]["examples_per_second"], "examples/s on the GPU")
sys.exit(abs(a["train"]["final_loss"] / b["train"]["final_loss"] - 1) > 0.02)
P
}
export -f tune; export log
if [ -f models/all-MiniLM-L6-v2/model.safetensors ]; then
  check fine_tune_minilm bash -c tune
else
  printf 'SKIP  fine_tune_minilm: models/all-MiniLM-L6-v2 is not here (scripts/fetch_minilm.sh)\n'
fi

printf '%s passed, %s failed\n' $passed $failed
[ $failed -eq 0 ] && [ $passed -gt 0 ]
