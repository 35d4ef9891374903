// Where a plot's axes begin and end, and which of its points are drawn.

/// Points that are drawn at most: about two a pixel.
const DRAWN = 900;

/// Least and greatest; spreading many values into a call would overflow its stack.
export function bounds(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/// Some room below and above; a line that lies near zero stands on it.
export function room(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const floor = low >= 0 && low < span ? 0 : low - 0.05 * span;
  return [floor, high + 0.05 * span];
}

/// Round numbers from low to high, about so many.
export function ticks(low, high, about) {
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
export function thin(points) {
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

/// The corners of a precision-recall curve, whose points are [threshold, recall, precision]: each step has the precision
/// of its end, so that the area below is the average precision.
export function steps(points) {
  let last = 0;
  return points.flatMap(([, recall, precision]) => {
    const corners = [[last, precision], [recall, precision]];
    last = recall;
    return corners;
  });
}

/// So many of the points at most, evenly spread, the first and the last one among them.
export function spread(points, most) {
  if (points.length <= most) return points;
  return Array.from({ length: most }, (_, at) => points[Math.round((at * (points.length - 1)) / (most - 1))]);
}
