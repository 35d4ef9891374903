// Building the document. Data only ever becomes text nodes and attributes, never markup.

/// An element with attributes (functions become listeners; false, null and undefined are left out) and children.
export function element(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

/// The same for a picture's parts.
export function shape(name, attributes = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  fill(node, ...children);
  return node;
}

/// Puts children in the place of those there are; null and undefined are left out.
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

/// Sets a node's text where it is another one, so that a selection in it survives.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/// A section of the page with a heading.
export function section(title, ...children) {
  return element("section", { class: "card", "aria-label": title }, element("h2", {}, title), ...children);
}

/// Names and values; pairs without a value are left out.
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const rows = shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("dl", { class: "facts" }, ...rows);
}

/// A table with a heading row; cells are nodes or texts.
export function table(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
  const whole = element("table", {}, element("caption", { class: "unseen" }, caption),
    element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, whole);
}

/// The badge of a job's state.
export function badge(state) {
  return element("span", { class: "state", "data-state": state }, state);
}

/// A bar that `update(done, total, label)` moves.
export class Bar {
  constructor() {
    this.inner = element("span");
    const range = { "aria-valuemin": "0", "aria-valuemax": "100" };
    this.node = element("div", { class: "bar", role: "progressbar", ...range }, this.inner);
  }

  update(done, total, label) {
    const percent = total > 0 ? Math.min(100, (100 * done) / total) : 0;
    this.inner.style.width = `${percent}%`;
    this.node.setAttribute("aria-valuenow", Math.round(percent));
    this.node.setAttribute("aria-label", label);
  }
}
