// What a job ended with.

import { curveSection } from "./curve.js";
import { element, facts, section, table } from "./dom.js";
import { bytes, count, duration, short } from "./figures.js";

/// Rows of the table: a name, and the prefix of its keys in the official metric.
const SETS = [
  ["all questions", ""], ["with an answer", "HasAns_"], ["without an answer", "NoAns_"],
  ["all, at the tuned threshold", "revised_"],
];

/// Figures of the official metric, and what training took.
export function resultsSection(results) {
  const percent = (value) => (typeof value === "number" ? value.toFixed(2) : "–");
  const whole = (value) => (typeof value === "number" ? count(value) : "–");
  const rows = SETS.filter(([, prefix]) => typeof results[`${prefix}f1`] === "number").map(([name, prefix]) => [
    name, percent(results[`${prefix}exact`]), percent(results[`${prefix}f1`]),
    whole(results[`${prefix}total`] ?? results.total),
  ]);
  const best = typeof results.best_f1 === "number" && facts([
    ["Best EM", `${percent(results.best_exact)} at threshold ${short(results.best_exact_thresh ?? 0)}`],
    ["Best F1", `${percent(results.best_f1)} at threshold ${short(results.best_f1_thresh ?? 0)}`],
  ]);
  return section("Results",
    element("div", { class: "headline" }, figure("EM", percent(results.exact)), figure("F1", percent(results.f1))),
    table("The official metric, in percent", ["Questions", "EM", "F1", "Number"], rows),
    best, results.precision_recall && curveSection(results.precision_recall), results.train && training(results.train));
}

function figure(name, value) {
  return element("div", {}, element("span", { class: "large" }, value), element("span", { class: "quiet" }, name));
}

function training(train) {
  const all = (key, form) => (typeof train[key] === "number" ? form(train[key]) : null);
  const share = train.allreduce_seconds / train.seconds;
  return facts([
    ["Steps", all("steps", count)],
    ["Examples", all("examples", count)],
    ["Training", all("seconds", (seconds) => duration(1000 * seconds))],
    ["Examples a second", all("examples_per_second", short)],
    ["Final loss", all("final_loss", short)],
    ["In all-reduce", Number.isFinite(share) ? `${(100 * share).toFixed(1)} % of the time` : null],
    ["Memory of a worker", train.peak_rss_bytes ? bytes(train.peak_rss_bytes) : null],
    ["Restarts", all("restarts", count)],
  ]);
}
