// A line over training steps, drawn as SVG, read with the pointer or with the arrow keys.

import { element, fill, say, shape } from "./dom.js";
import { count, short } from "./figures.js";

/// In pixels, as the text in it is; the width is that of the page.
const HEIGHT = 180;
const EDGE = { left: 52, right: 10, top: 10, bottom: 22 };
/// Points that are drawn at most: about two a pixel.
const DRAWN = 900;

/// One figure's plot. `set` gives it points, in the order of their steps.
export class Plot {
  constructor(title) {
    this.title = title;
    this.points = [];
    this.at = null;
    this.readout = element("output", { class: "readout" });
    this.picture = shape("svg", {
      height: HEIGHT, tabindex: "0", role: "img", class: "plot",
      pointermove: (event) => this.point(event), pointerdown: (event) => this.point(event),
      pointerleave: () => this.mark(null), blur: () => this.mark(null), keydown: (event) => this.key(event),
    });
    const caption = element("figcaption", {}, element("span", {}, title), this.readout);
    this.node = element("figure", {}, caption, this.picture);
    this.node.hidden = true;
    this.width = 480;
    new ResizeObserver(([box]) => this.fit(Math.round(box.contentRect.width))).observe(this.node);
  }

  /// Draws anew where the width has changed; a hidden plot has none.
  fit(width) {
    if (width === 0 || width === this.width) return;
    this.width = width;
    this.set(this.points);
  }

  /// Draws the points, each a step and a value.
  set(points) {
    this.points = points;
    this.node.hidden = points.length === 0;
    if (points.length === 0) return;
    const values = points.map(([, value]) => value);
    const [low, high] = room(...bounds(values));
    const [first, last] = [points[0][0], Math.max(points.at(-1)[0], points[0][0] + 1)];
    this.x = (step) => EDGE.left + ((step - first) / (last - first)) * (this.width - EDGE.left - EDGE.right);
    this.y = (value) => HEIGHT - EDGE.bottom - ((value - low) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);
    const corners = thin(points).map(([step, value]) => `${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`);
    this.cursor = shape("g", { class: "cursor" });
    const single = points.length === 1 && shape("circle", { r: 3, cx: this.x(first), cy: this.y(values[0]) });
    const line = shape("path", { class: "line", d: `M${corners.join("L")}` });
    fill(this.picture, ...this.axes(low, high, first, last), line, single, this.cursor);
    const ends = `first ${short(values[0])}, last ${short(values.at(-1))}`;
    const label = `${this.title} over ${count(last - first + 1)} steps: ${ends}. Arrow keys read single values.`;
    this.picture.setAttribute("aria-label", label);
    this.mark(this.at === null ? null : Math.min(this.at, points.length - 1));
  }

  axes(low, high, first, last) {
    const horizontal = ticks(low, high, 4).map((value) => [
      shape("line", { class: "grid", x1: EDGE.left, x2: this.width - EDGE.right, y1: this.y(value), y2: this.y(value) }),
      shape("text", { x: EDGE.left - 6, y: this.y(value) + 4, "text-anchor": "end" }, short(value)),
    ]);
    const whole = ticks(first, last, 5).filter(Number.isInteger);
    const vertical = whole.map((step) => {
      return shape("text", { x: this.x(step), y: HEIGHT - 6, "text-anchor": "middle" }, count(step));
    });
    return [...horizontal.flat(), ...vertical];
  }

  /// Reads the point nearest to the pointer.
  point(event) {
    const box = this.picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    let nearest = 0;
    this.points.forEach(([step], at) => {
      if (Math.abs(this.x(step) - x) < Math.abs(this.x(this.points[nearest][0]) - x)) nearest = at;
    });
    this.mark(nearest);
  }

  key(event) {
    const last = this.points.length - 1;
    const stride = Math.max(1, Math.round(last / 100));
    const moves = { ArrowLeft: -stride, ArrowRight: stride, Home: -last, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.mark(Math.max(0, Math.min(last, (this.at ?? last) + moves[event.key])));
  }

  /// Marks a point and says its value; without one, says the last.
  mark(at) {
    this.at = at;
    if (this.points.length === 0) return;
    const [step, value] = this.points[at ?? this.points.length - 1];
    say(this.readout, at === null ? short(value) : `step ${count(step)}: ${short(value)}`);
    if (at === null) return fill(this.cursor);
    const x = this.x(step);
    fill(this.cursor, shape("line", { x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
      shape("circle", { r: 4, cx: x, cy: this.y(value) }));
  }
}

/// Least and greatest; spreading many values into a call would overflow its stack.
function bounds(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/// Some room below and above; a line that lies near zero stands on it.
function room(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const floor = low >= 0 && low < span ? 0 : low - 0.05 * span;
  return [floor, high + 0.05 * span];
}

/// Round numbers from low to high, about so many.
function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) {
    values.push(Number(value.toPrecision(10)));
  }
  return values;
}

/// The least and the greatest value of each of so many stretches: a spike stays to be seen.
function thin(points) {
  if (points.length <= DRAWN) return points;
  const size = Math.ceil((2 * points.length) / DRAWN);
  const kept = [];
  for (let from = 0; from < points.length; from += size) {
    const part = points.slice(from, from + size);
    const sorted = [...part].sort((a, b) => a[1] - b[1]);
    kept.push(...[sorted[0], sorted.at(-1)].sort((a, b) => a[0] - b[0]));
  }
  return kept;
}
