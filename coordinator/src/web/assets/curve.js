// Precision against recall: two curves, drawn as SVG, read with the pointer or with the arrow keys, and as a table.

import { element, fill, say, shape, table } from "./dom.js";
import { spread, steps } from "./scale.js";

/// In pixels; the width is that of the page.
const HEIGHT = 240;
const EDGE = { left: 52, right: 10, top: 10, bottom: 38 };
/// Points of each curve in the table.
const ROWS = 11;
const PARTS = [0, 0.25, 0.5, 0.75, 1];

const percent = (part) => `${(100 * part).toFixed(1)} %`;
const threshold = (odds) => (odds === null ? "none" : odds.toFixed(4));

/// The curves of a job's results, with what they mean.
export function curveSection(curves) {
  const lines = [["Exact match", "exact", curves.exact_ap], ["F1", "f1", curves.f1_ap]];
  const rows = lines.flatMap(([name, key]) => spread(curves[key], ROWS).map(([odds, recall, precision]) => [
    name, threshold(odds), percent(recall), percent(precision),
  ]));
  return element("div", {}, element("h3", {}, "Precision and recall"),
    element("p", { class: "quiet" }, "What is answered when questions are answered up to a probability of having no answer, ",
      "over all such thresholds. Average precision, answerable or not (oracle): ", `${curves.oracle_ap.toFixed(2)} %.`),
    new Curve(curves, lines).node,
    element("details", {}, element("summary", {}, "The curves as a table"),
      table("Points of the curves", ["Curve", "Threshold", "Recall", "Precision"], rows)));
}

class Curve {
  constructor(curves, lines) {
    this.curves = curves;
    this.lines = lines;
    this.at = null;
    this.width = 480;
    this.readout = element("output", { class: "readout" });
    const areas = lines.map(([name, , ap]) => `${name} ${ap.toFixed(2)} %`).join(", ");
    this.picture = shape("svg", {
      height: HEIGHT, tabindex: "0", role: "img", class: "plot",
      "aria-label": `Precision over recall. Average precision: ${areas}. Arrow keys read points of the F1 curve.`,
      pointermove: (event) => this.point(event), pointerdown: (event) => this.point(event),
      pointerleave: () => this.mark(null), blur: () => this.mark(null), keydown: (event) => this.key(event),
    });
    const legend = lines.map(([name, key, ap]) => {
      const sample = shape("svg", { class: "plot sample", width: 28, height: 10, "aria-hidden": "true" },
        shape("path", { class: `line ${key}`, d: "M0 5L28 5" }));
      return element("span", { class: "legend" }, sample, ` ${name}, average precision ${ap.toFixed(2)} %`);
    });
    this.node = element("figure", { class: "curve" }, element("figcaption", {}, ...legend), this.picture,
      element("p", {}, this.readout));
    this.draw();
    new ResizeObserver(([box]) => this.fit(Math.round(box.contentRect.width))).observe(this.node);
  }

  fit(width) {
    if (width === 0 || width === this.width) return;
    this.width = width;
    this.draw();
  }

  x(recall) {
    return EDGE.left + recall * (this.width - EDGE.left - EDGE.right);
  }

  y(precision) {
    return HEIGHT - EDGE.bottom - precision * (HEIGHT - EDGE.top - EDGE.bottom);
  }

  draw() {
    const path = (points) => steps(points).map(([x, y]) => `${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("L");
    const paths = this.lines.map(([, key]) => shape("path", { class: `line ${key}`, d: `M${path(this.curves[key])}` }));
    this.cursor = shape("g", { class: "cursor" });
    fill(this.picture, ...this.axes(), ...paths, this.cursor);
    this.mark(this.at);
  }

  axes() {
    const bottom = HEIGHT - EDGE.bottom;
    return [
      ...PARTS.map((part) => shape("line", {
        class: "grid", x1: EDGE.left, x2: this.width - EDGE.right, y1: this.y(part), y2: this.y(part),
      })),
      ...PARTS.map((part) => shape("text", { x: EDGE.left - 6, y: this.y(part) + 4, "text-anchor": "end" }, `${100 * part} %`)),
      ...PARTS.map((part) => shape("text", { x: this.x(part), y: bottom + 14, "text-anchor": "middle" }, `${100 * part}`)),
      shape("text", { x: this.x(0.5), y: bottom + 30, "text-anchor": "middle" }, "precision, over recall in percent"),
    ];
  }

  /// Reads the point of the F1 curve whose recall is nearest to the pointer.
  point(event) {
    const box = this.picture.getBoundingClientRect();
    const recall = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    const far = ([, at]) => Math.abs(at - recall);
    this.mark(this.curves.f1.reduce((best, point, at, all) => (far(point) < far(all[best]) ? at : best), 0));
  }

  key(event) {
    const last = this.curves.f1.length - 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.mark(Math.max(0, Math.min(last, (this.at ?? 0) + moves[event.key])));
  }

  /// Marks a point and says what it means.
  mark(at) {
    this.at = at;
    if (at === null) {
      say(this.readout, "");
      return fill(this.cursor);
    }
    const [odds, recall, precision] = this.curves.f1[at];
    say(this.readout, `F1 at threshold ${threshold(odds)}: recall ${percent(recall)}, precision ${percent(precision)}`);
    fill(this.cursor, shape("circle", { r: 4, cx: this.x(recall), cy: this.y(precision) }));
  }
}
