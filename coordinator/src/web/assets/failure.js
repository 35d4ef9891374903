// Why a job failed, and what to do.

import { element, facts, fill, section } from "./dom.js";
import { fetchJson } from "./server.js";

/// The failure report of a job.
export function failureSection(failure) {
  const tail = failure.stderr_tail.length > 0 && [
    element("h3", {}, "Last lines of the worker"),
    element("pre", { tabindex: "0" }, failure.stderr_tail.join("\n")),
  ];
  const node = section("Why it failed",
    element("p", { class: "sentence" }, element("code", {}, failure.code), ` ${failure.summary}`),
    element("p", {}, element("strong", {}, "What to do: "), failure.remedy, "."),
    facts([["Rank", failure.rank?.toString()], ["Phase", failure.phase], ["Step", failure.step?.toString()]]),
    ...(tail || []), explanation(failure.code));
  node.classList.add("failure");
  return node;
}

/// The page of a code, asked for when it is opened.
function explanation(code) {
  const text = element("div", {}, "Asking the coordinator …");
  const details = element("details", {}, element("summary", {}, `What ${code} means`), text);
  details.addEventListener("toggle", async () => {
    try {
      const { page } = await fetchJson(`/api/codes/${encodeURIComponent(code)}`);
      fill(text, ...page.trim().split("\n").slice(1).map(line));
    } catch (error) {
      fill(text, error.message);
    }
  }, { once: true });
  return details;
}

/// A line of a page: a heading, an item or a sentence.
function line(text) {
  if (text.startsWith("## ")) return element("h3", {}, text.slice(3));
  if (text.startsWith("- ")) return element("p", { class: "item" }, ...words(text.slice(2)));
  return text.trim() === "" ? null : element("p", {}, ...words(text));
}

/// A sentence whose parts between backticks are code.
function words(text) {
  return text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
}
