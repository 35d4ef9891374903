#!/usr/bin/env bash
# Times fine-tuning beside a Hugging Face program, in turn, one process each with the same threads: MiniLM, batches of 8
# windows of up to 384 tokens, 32-bit floats. Prints Markdown tables: examples a second padded to the maximum (dropout 0 and
# 0.1; on a CPU ours passes over the padding) and on real lengths (ours as shipped, and in a plain random order; theirs as
# shipped, and at its best), peak memory with and without recomputed activations, and the time from the start of the process to
# the beginning and the end of the first step. Rates are medians of the rounds.
#
# Usage: scripts/bench_train.sh PEERS [WORK]
#   PEERS    the folder of hf_squad.py, a Hugging Face fine-tuning program
#   WORK     where its set-up made venv/, minilm/ and squad/ (default: peers-work)
# In the environment PLOT names a file to draw the same in, as SVG; ROUNDS (2), STEPS (20, padded) and LENGTHS (60, of real
# lengths) change how much is measured, PROGRAMS where squadctl and squad-worker are (target/release: build them with
# `cargo build --release --bins` first). With AVX-512, or TUNED=1, theirs is measured with and without its --mkl-avx512 (without
# AVX-512 that has MKL take its AVX2 kernels, as ours does); with bfloat16 products both are measured in that format, too.
# About 20 minutes on two cores without AVX-512.
set -euo pipefail
peers=$(cd "${1:?usage: bench_train.sh PEERS [WORK]}" && pwd)
work=$(cd "${2:-${PEER_WORK:-peers-work}}" && pwd)
repository=$(cd "$(dirname "$0")/.." && pwd)
export PROGRAMS=${PROGRAMS:-$repository/target/release} ROUNDS=${ROUNDS:-2} STEPS=${STEPS:-20} LENGTHS=${LENGTHS:-60}
for needed in "$peers/hf_squad.py" "$work/venv/bin/python" "$work/minilm" "$work/squad/train-v1.1.json" "$PROGRAMS/squadctl" "$PROGRAMS/squad-worker"; do
  [ -e "$needed" ] || { echo "bench_train.sh: $needed is not there; see the first lines of $0" >&2; exit 2; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONDONTWRITEBYTECODE=1 SQUAD_WORKER=$PROGRAMS/squad-worker
"$work/venv/bin/python" - "$peers" "$work" "$folder" <<'PYTHON'
import json, os, pathlib, statistics, subprocess, sys, time

peers, work, folder = map(pathlib.Path, sys.argv[1:])
programs = pathlib.Path(os.environ["PROGRAMS"])
rounds, steps, lengths = (int(os.environ[name]) for name in ("ROUNDS", "STEPS", "LENGTHS"))
flags = pathlib.Path("/proc/cpuinfo").read_text()
tuned, bf16 = "avx512f" in flags or "TUNED" in os.environ, "avx512_bf16" in flags
BATCH, SKIPPED = 8, 3


def watched(command, out, seen, **more):
    """Runs a command to its end; gives the seconds until `seen` is true, looked at every 5 ms."""
    begun, first = time.perf_counter(), None
    with open(out, "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **more)
        while process.poll() is None:
            if first is None and seen():
                first = time.perf_counter() - begun
            time.sleep(0.005 if first is None else 0.05)
    if process.returncode:
        sys.exit("bench_train.sh: %s failed:\n%s" % (command[:3], pathlib.Path(out).read_text()[-2000:]))
    return first


def rate(seconds):
    seconds = seconds[SKIPPED:]
    return BATCH * len(seconds) / sum(seconds)


def ours(name, count, width, dropout, cache, grouped=True, **train):
    out = folder / name
    spec = {
        "name": "bench-train", "model": str(work / "minilm"), "head": "span", "output_dir": str(out),
        "data": {"version": "1.1", "train": str(work / "squad/train-v1.1.json"), "max_seq_length": 384, "doc_stride": 128,
                 "window": "overlap", "pad_to_multiple": width, "group_by_length": grouped},
        "train": {"steps": count, "batch_size": BATCH, "learning_rate": 5e-5, "weight_decay": 0, "bias_correction": True,
                  "adam_epsilon": 1e-8, "dropout": dropout, "log_every": 1, **train},
        "resources": {"workers": 1},
    }
    (folder / "job.yaml").write_text(json.dumps(spec))
    metrics = out / "metrics.jsonl"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    start = watched([str(programs / "squadctl"), "run", str(folder / "job.yaml")], folder / "ours.log",
                    lambda: metrics.exists() and metrics.stat().st_size > 0, env=dict(os.environ, SQUAD_FEATURE_CACHE=cache))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    result = json.loads((out / "results.json").read_text())["train"]
    taken = [BATCH / line["examples_per_second"] for line in lines]
    return {"rate": rate(taken), "start": start, "begun": start - taken[0],
            "memory": result["peak_rss_bytes"] / 2**20, "padding": result["padding"],
            "collate": sum(line["collate_seconds"] for line in lines) / result["seconds"]}


def theirs(name, count, padding, dropout, *more):
    out, log = folder / name, folder / "theirs.log"
    start = watched(["venv/bin/python", str(peers / "hf_squad.py"), "--model", "minilm", "--train", "squad/train-v1.1.json",
                     "--no-eval", "--squad-version", "1", "--max-seq-length", "384", "--doc-stride", "128", "--padding", padding,
                     "--batch-size", str(BATCH), "--max-steps", str(count), "--dropout", str(dropout), "--out", str(out), *more],
                    log, lambda: "step 1/" in log.read_text(), cwd=work)
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    taken = [line["seconds"] for line in lines]
    return {"rate": rate(taken), "start": start, "begun": start - taken[0],
            "memory": result["peak_rss_mb_per_rank_after_train"][0], "padding": result["padding_waste"],
            "busy": result["cpu_utilisation"]}


cold, warm = "off", str(folder / "features")
kinds = {}
for dropout in (0, 0.1):
    kinds[f"ours, padded, dropout {dropout}"] = lambda name, d=dropout: ours(name, steps, 384, d, cold)
    kinds[f"theirs, padded, dropout {dropout}"] = lambda name, d=dropout: theirs(name, steps, "max", d)
    if tuned:
        kinds[f"theirs, padded, dropout {dropout}, --mkl-avx512"] = lambda name, d=dropout: theirs(name, steps, "max", d, "--mkl-avx512")
    kinds[f"ours, padded, dropout {dropout}, recompute"] = lambda name, d=dropout: ours(name, steps, 384, d, warm, recompute=True)
best = ["--group-by-length"] + ["--mkl-avx512"] * tuned
kinds["ours, real lengths, dropout 0.1"] = lambda name: ours(name, lengths, 8, 0.1, warm)
kinds["ours, real lengths, dropout 0.1, not grouped"] = lambda name: ours(name, lengths, 8, 0.1, warm, grouped=False)
kinds["theirs, real lengths, dropout 0.1, as shipped (padded)"] = lambda name: theirs(name, lengths, "max", 0.1)
kinds["theirs, real lengths, dropout 0.1, at its best"] = lambda name: theirs(name, lengths, "dynamic", 0.1, *best)
if bf16:
    kinds["ours, padded, dropout 0, bfloat16"] = lambda name: ours(name, steps, 384, 0, warm, dtype="bfloat16")
    kinds["theirs, padded, dropout 0, bfloat16"] = lambda name: theirs(name, steps, "max", 0, "--bf16", "--mkl-avx512")

found = {name: [] for name in kinds}
for turn in range(rounds):
    for number, (name, measure) in enumerate(kinds.items()):
        print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
        found[name].append(measure(f"run-{number}"))

median = lambda name, key: statistics.median(one[key] for one in found[name])
print("| | examples/s | padding | peak memory | start to first step begun | and done | waiting for batches | cores busy |")
print("|---|---|---|---|---|---|---|---|")
for name, all in found.items():
    share = f"{100 * median(name, 'collate'):.2f} %" if "collate" in all[0] else ""
    busy = f"{100 * median(name, 'busy'):.0f} %" if "busy" in all[0] else ""
    print(f"| {name} | {median(name, 'rate'):.2f} | {100 * median(name, 'padding'):.1f} % | {median(name, 'memory'):.0f} MiB "
          f"| {median(name, 'begun'):.2f} s | {median(name, 'start'):.2f} s | {share} | {busy} |")

print("\n| ours against theirs | examples/s | least | memory | first step begun | and done |")
print("|---|---|---|---|---|---|")
for name in (name for name in kinds if name.startswith("theirs")):
    case = name.removeprefix("theirs, ").removesuffix(", --mkl-avx512").removesuffix(", as shipped (padded)").removesuffix(", at its best")
    pairs = list(zip(found["ours, " + case], found[name]))
    ratio = lambda key: [a[key] / b[key] for a, b in pairs]
    print(f"| {name} | {statistics.median(ratio('rate')):.2f} | {min(ratio('rate')):.2f} "
          f"| {statistics.median(ratio('memory')):.2f} | {statistics.median(ratio('begun')):.2f} "
          f"| {statistics.median(ratio('start')):.2f} |")
    again = "ours, " + case + ", recompute"
    if again in found and name == "theirs, " + case:
        pairs = list(zip(found[again], found[name]))
        print(f"| {name}; ours with recompute | {statistics.median(ratio('rate')):.2f} | {min(ratio('rate')):.2f} "
              f"| {statistics.median(ratio('memory')):.2f} | | |")


def plot(path):
    """Bars of examples a second and of peak memory, one below the other, as SVG."""
    rows = [(name, median(name, "rate"), median(name, "memory")) for name in kinds if "recompute" not in name]
    title = "Examples a second, and peak memory, of Squadron and a Hugging Face program"
    height = 60 + 34 * len(rows)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" width="860" height="{height}" role="img" '
             f'aria-label="{title}" font-family="sans-serif" font-size="13">', f"<title>{title}</title>",
             f'<rect width="860" height="{height}" rx="8" fill="#fff"/>',
             '<text x="370" y="26" fill="#333">examples/s</text>', '<text x="640" y="26" fill="#333">peak memory</text>']
    for number, (name, speed, memory) in enumerate(rows):
        top, own = 40 + 34 * number, name.startswith("ours")
        lines.append(f'<text x="360" y="{top + 16}" text-anchor="end" fill="#333">{name}</text>')
        for left, value, most, text, colour in (
                (370, speed, max(row[1] for row in rows), f"{speed:.2f}", "#2f6fbd" if own else "#b9c6d8"),
                (640, memory, max(row[2] for row in rows), f"{memory:.0f} MiB", "#3a8f5c" if own else "#bfd8c8")):
            width = 150 * value / most
            lines.append(f'<rect x="{left}" y="{top}" width="{width:.1f}" height="22" rx="3" fill="{colour}"/>'
                         f'<text x="{left + width + 6:.1f}" y="{top + 16}" fill="#333">{text}</text>')
    pathlib.Path(path).write_text("\n".join(lines + ["</svg>", ""]))


if os.environ.get("PLOT"):
    plot(os.environ["PLOT"])
PYTHON
