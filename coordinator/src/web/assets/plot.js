// A line over training steps, drawn as SVG, read with the pointer or with the arrow keys.

import { element, fill, say, shape } from "./dom.js";
import { count, short } from "./figures.js";
import { bounds, room, thin, ticks } from "./scale.js";

/// In pixels, as the text in it is; the width is that of the page.
const HEIGHT = 180;
const EDGE = { left: 52, right: 10, top: 10, bottom: 22 };

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
