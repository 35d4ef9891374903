#!/usr/bin/env bash
# Measures all-reduce beside gloo and Open MPI. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3 procs="2 4" largest=64 seconds=0.3 keep=
usage() {
  cat <<'H'
usage: scripts/bench_allreduce.sh PEERS WORK [options]

Measures squadctl bench allreduce, PEERS/allreduce_gloo.py and PEERS/allreduce_mpi.py one after the other in turn, several
rounds, over TCP and in shared memory (values where gradients lie, and in the caller's own memory), and prints tables as Markdown: medians over the rounds, and the median of
each round's ratio (the faster peer's time divided by ours; above 1 we are faster). Both scripts print as their last
line {"procs": {"2": [{"bytes", "median_s", "correct"}, ...]}}. gloo has TCP only.

  PEERS              the folder with the two scripts
  WORK               a folder whose venv/bin/python has torch and mpi4py; mpirun is on the path
  --rounds N         default 3
  --procs LIST       numbers of processes, default "2 4"
  --largest MIB      largest buffer, default 64; smallest 4 KiB, in steps of four
  --seconds S        about how long to measure each size, default 0.3
  --keep DIR         keep what each program printed there
Builds squadctl as a release first.
H
}
fail() { printf 'bench_allreduce: %s\n' "$*" >&2; exit 2; }
[ "${1:-}" != -h ] && [ "${1:-}" != --help ] || { usage; exit 0; }
[ $# -ge 2 ] || { usage >&2; exit 2; }
peers=$1 work=$2
shift 2
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 needs a value (see --help)"
  case $1 in
    --rounds) rounds=$2 ;;
    --procs) procs=$2 ;;
    --largest) largest=$2 ;;
    --seconds) seconds=$2 ;;
    --keep) keep=$2 ;;
    *) fail "unknown option $1 (see --help)" ;;
  esac
  shift 2
done
python=$work/venv/bin/python
[ -x "$python" ] || fail "there is no $python: WORK is not the peers' environment"
for script in allreduce_gloo.py allreduce_mpi.py; do
  [ -f "$peers/$script" ] || fail "there is no $peers/$script"
done
command -v mpirun >/dev/null || fail "there is no mpirun: install Open MPI (Debian: openmpi-bin)"

cargo build --release --workspace --bin squadctl
ours=${CARGO_TARGET_DIR:-target}/release/squadctl
out=${keep:-$(mktemp -d)}
mkdir -p "$out"
[ -n "$keep" ] || trap 'rm -rf "$out"' EXIT

# measure NAME COMMAND...: what it prints goes to NAME.json.
measure() {
  local name=$1
  shift
  printf 'bench_allreduce: %s\n' "$name" >&2
  "$@" 2>>"$out/log" >"$out/$name.json" || { tail -n 20 "$out/log" >&2; fail "$name failed"; }
}

bytes=$((largest * 1024 * 1024))
for round in $(seq "$rounds"); do
  for np in $procs; do
    for transport in tcp shm; do
      measure "ours-$transport-$np-$round" "$ours" bench allreduce --np "$np" --transport "$transport" \
        --sizes "4KiB..${largest}MiB" --seconds "$seconds" --output json
      [ "$transport" = tcp ] || measure "ours-caller-$np-$round" "$ours" bench allreduce --np "$np" --transport shm \
        --memory caller --sizes "4KiB..${largest}MiB" --seconds "$seconds" --output json
      mpi=default
      if [ "$transport" = tcp ]; then
        mpi=tcp
        measure "gloo-tcp-$np-$round" "$python" "$peers/allreduce_gloo.py" --procs "$np" --max "$bytes" --seconds "$seconds"
      fi
      measure "mpi-$transport-$np-$round" "$python" "$peers/allreduce_mpi.py" --procs "$np" --max "$bytes" \
        --seconds "$seconds" --transport "$mpi"
    done
  done
done

"$python" - "$out" "$rounds" $procs <<'P'
import json, statistics, sys

out, rounds, procs = sys.argv[1], int(sys.argv[2]), sys.argv[3:]


def rows(name, np, number):
    with open(f"{out}/{name}-{np}-{number}.json") as file:
        text = file.read().strip()
    # The peers' document is their last line.
    report = json.loads(text if name.startswith("ours") else text.splitlines()[-1])
    found = report["procs"][np] if "procs" in report else report["results"]
    if not all(row["correct"] for row in found):
        sys.exit(f"bench_allreduce: a sum of {name} was wrong")
    return {row["bytes"]: (row["median_s"], row.get("share_of_bound")) for row in found}


def shown(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


titles = {"gloo-tcp": "gloo", "mpi-tcp": "Open MPI", "mpi-shm": "Open MPI"}
kinds = {"tcp": "over TCP", "shm": "shared memory, where gradients lie", "caller": "shared memory, the caller's buffers"}
for kind, names in (("tcp", ("gloo-tcp", "mpi-tcp")), ("shm", ("mpi-shm",)), ("caller", ("mpi-shm",))):
    for np in procs:
        times = {name: [rows(name, np, k + 1) for k in range(rounds)] for name in (f"ours-{kind}",) + names}
        mine = times[f"ours-{kind}"]
        print(f"\n{np} processes, {kinds[kind]}, {rounds} rounds\n")
        bound = " of the bound |" if kind == "shm" else ""
        print("| bytes | Squadron | GB/s (bus) |" + bound, " | ".join(titles[name] for name in names) + " | ratio | least |")
        print("|---" * (5 + bool(bound) + len(names)) + "|")
        for size in mine[0]:
            median = lambda name: statistics.median(row[size][0] for row in times[name])
            ratios = [min(times[name][k][size][0] for name in names) / mine[k][size][0] for k in range(rounds)]
            ours = median(f"ours-{kind}")
            bus = size / ours / 1e9 * 2 * (int(np) - 1) / int(np)
            shares = [row[size][1] for row in mine if row[size][1] is not None]
            share = f" {100 * statistics.median(shares):.0f} % |" if bound and shares else bound and " |"
            cells = [f"{seconds * 1e6:.1f} us" for seconds in [median(name) for name in names]]
            print(f"| {shown(size)} | {ours * 1e6:.1f} us | {bus:.2f} |{share} {' | '.join(cells)} | "
                  f"{statistics.median(ratios):.2f} | {min(ratios):.2f} |")
P
