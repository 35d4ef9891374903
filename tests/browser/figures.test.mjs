// What the page computes, without a browser: node --test tests/browser

import assert from "node:assert/strict";
import { test } from "node:test";
import { Pace, duration, short, use } from "../../coordinator/src/web/assets/figures.js";
import { bounds, room, spread, steps, thin, ticks } from "../../coordinator/src/web/assets/scale.js";

test("durations have two units at most", () => {
  const shown = [3, 2500, 42_000, 151_000, 7_380_000, 180_000_000].map(duration);
  assert.deepEqual(shown, ["0.0 s", "2.5 s", "42 s", "2 min 31 s", "2 h 3 min", "2 d 2 h"]);
});

test("numbers keep the digits that count", () => {
  const shown = [0, 1.23456, 0.00003, 4096.4, -0.5, 2.5e7].map(short);
  assert.deepEqual(shown, ["0", "1.235", "3.00e-5", "4,096", "-0.5", "2.50e+7"]);
});

test("the rest takes as long as the speed says", () => {
  const pace = new Pace();
  const at = (done, phase = "train") => ({ phase, done, total: 100 });
  assert.equal(pace.observe(1000, at(40)), null);
  assert.equal(pace.observe(3000, at(50)), 10_000, "ten steps in two seconds, fifty are left");
  assert.equal(pace.observe(9000, at(100)), null, "nothing is left");
  assert.equal(pace.observe(9500, at(10, "evaluate")), null, "another phase is measured anew");
  assert.equal(pace.observe(9700, at(5, "evaluate")), null, "so is one that goes back");
});

test("what is in use is told of slots, and of GPUs where they are counted", () => {
  const room = { slots: 4, slots_held: 3, gpus: null, gpus_held: 0 };
  assert.equal(use(room), "3 of 4 slots in use");
  assert.equal(use({ ...room, gpus: 2, gpus_held: 1 }), "3 of 4 slots · 1 of 2 GPUs in use");
});

test("ticks are round and lie within", () => {
  assert.deepEqual(ticks(0, 4.2, 4), [0, 2, 4]);
  assert.deepEqual(ticks(0, 3.1e-5, 4), [0, 1e-5, 2e-5, 3e-5]);
  for (let round = 0; round < 500; round += 1) {
    const span = 10 ** (Math.random() * 12 - 6);
    const low = (Math.random() - 0.5) * 1000 * span;
    const values = ticks(low, low + span, 4);
    const said = `${low} and ${span} on: ${values}`;
    assert.ok(values.length > 0 && values.length <= 9, said);
    assert.ok(values.every((value) => value >= low - span / 1000 && value <= low + span * 1.001), said);
  }
});

test("a plot has room around its values, even around one", () => {
  for (const [low, high] of [[0, 0], [1, 1], [-2, 5], [3e-5, 4e-5], [30, 31]]) {
    const [floor, ceiling] = room(low, high);
    assert.ok(floor <= low && ceiling > high && ceiling > floor, `${low} ${high}: ${floor} ${ceiling}`);
  }
});

test("the area below a curve's corners is its average precision", () => {
  const points = [[null, 0, 1], [0.1, 1 / 3, 1], [0.2, 5 / 9, 5 / 6], [0.7, 8 / 9, 8 / 15]];
  const corners = steps(points);
  let area = 0;
  for (let at = 1; at < corners.length; at += 1) area += (corners[at][0] - corners[at - 1][0]) * corners[at][1];
  const byHand = 1 / 3 + (5 / 6) * (2 / 9) + (8 / 15) * (3 / 9);
  assert.ok(Math.abs(area - byHand) < 1e-12, `${area} ${byHand}`);
});

test("a table has so many of the points, the ends among them", () => {
  const points = Array.from({ length: 200 }, (_, at) => [at]);
  assert.deepEqual(spread(points, 5).map(([at]) => at), [0, 50, 100, 149, 199]);
  assert.equal(spread(points.slice(0, 3), 5).length, 3);
});

test("thinning keeps the order, the extremes and the number small", () => {
  const points = Array.from({ length: 100_000 }, (_, step) => [step, Math.sin(step)]);
  points[70_001][1] = 50;
  const kept = thin(points);
  assert.ok(kept.length <= 900, String(kept.length));
  assert.ok(kept.every(([step], at) => at === 0 || step >= kept[at - 1][0]), "in order");
  assert.deepEqual(bounds(kept.map(([, value]) => value)), bounds(points.map(([, value]) => value)));
  assert.equal(thin(points.slice(0, 10)).length, 10, "few points all stay");
});
