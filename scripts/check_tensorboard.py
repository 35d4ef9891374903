#!/usr/bin/env python3
"""Holds OUTPUT/tensorboard against OUTPUT/metrics.jsonl with TensorBoard's own reader.

usage: check_tensorboard.py OUTPUT        needs: pip install tensorboard==2.20.0

Prints the tags with their numbers of points; exits 1 when a figure differs by more than 32-bit rounding.
"""

import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

output = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(output / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
wrong = 0
for tag in events.Tags()["scalars"]:
    points = [(event.step, event.value) for event in events.Scalars(tag)]
    print(f"{tag}: {len(points)} points")
    part, name = tag.split("/")
    if part != "train":
        continue
    expected = [(line["step"], line[name]) for line in lines]
    same = len(points) == len(expected) and all(
        step == wanted_step and abs(value - wanted) <= 1e-6 * abs(wanted)
        for (step, value), (wanted_step, wanted) in zip(points, expected)
    )
    if not same:
        wrong += 1
        print(f"{tag} differs: {points[:5]} against {expected[:5]}", file=sys.stderr)
sys.exit(1 if wrong or not lines else 0)
