// A question to a finished model.

import { element, fill, section, table } from "./dom.js";
import { duration } from "./figures.js";
import { post } from "./server.js";

/// A form that asks the model of a job.
export function askSection(id) {
  const question = element("input", { id: "question", type: "text", required: true, autocomplete: "off" });
  const context = element("textarea", { id: "context", rows: "6", required: true });
  const button = element("button", { type: "submit" }, "Ask");
  const answer = element("div", { class: "answer", role: "status" });
  const form = element("form", {},
    element("label", { for: "question" }, "Question"), question,
    element("label", { for: "context" }, "Text that holds the answer"), context,
    element("div", { class: "controls" }, button), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    fill(answer, element("p", { class: "quiet" }, "The model is loaded and reads …"));
    const asked = { question: question.value, context: context.value };
    const begun = Date.now();
    try {
      const reply = await post(`/api/jobs/${encodeURIComponent(id)}/ask`, asked);
      fill(answer, ...told(reply, asked.context, Date.now() - begun));
    } catch (error) {
      fill(answer, element("p", { class: "wrong" }, error.message));
    }
    button.disabled = false;
  });
  return section("Ask the model", form);
}

/// The answer, where it is in the text, and what else it might have been.
function told(reply, context, ms) {
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  // Places are counted in characters, of which JavaScript may count one as two.
  const letters = Array.from(context);
  const part = (from, to) => letters.slice(from, to).join("");
  const { start, end, probability } = reply;
  const found = reply.answer !== "" && Number.isInteger(start);
  const answer = element("strong", {}, reply.answer || "No answer in this text");
  const others = reply.n_best.map((candidate) => [candidate.text || "(none)", percent(candidate.probability)]);
  if (typeof reply.no_answer_probability === "number") others.push(["no answer", percent(reply.no_answer_probability)]);
  return [
    element("p", {}, answer, found ? ` with probability ${percent(probability)}` : "",
      element("span", { class: "quiet" }, ` · ${duration(ms)}`)),
    found && element("blockquote", {}, part(0, start), element("mark", {}, part(start, end)), part(end)),
    table("Answers by probability", ["Answer", "Probability"], others),
  ];
}
