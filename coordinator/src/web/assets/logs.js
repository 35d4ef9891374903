// What the workers wrote.

import { element, fill, say, section } from "./dom.js";
import { fetchJson } from "./server.js";

/// How often a running job's log is asked for.
const EVERY = 2000;

/// The log of a job.
export class Logs {
  constructor(id, workers) {
    this.id = id;
    this.timer = null;
    this.chosen = false;
    const choices = [["", "all ranks"], ...Array.from({ length: workers }, (_, r) => [String(r), `rank ${r}`])];
    this.rank = element("select", { id: "rank", change: () => this.choose() },
      ...choices.map(([value, text]) => element("option", { value }, text)));
    this.rank.value = "0";
    this.find = element("input",
      { id: "find", type: "search", placeholder: "only lines with …", input: () => this.show() });
    this.text = element("pre", { class: "log", tabindex: "0", role: "log", "aria-label": "Output of the workers" });
    this.lines = [];
    this.node = section("Log",
      element("div", { class: "controls" }, element("label", { for: "rank" }, "Show"), this.rank,
        element("label", { for: "find", class: "unseen" }, "Only lines with"), this.find),
      this.text);
  }

  /// Keeps the log up to date while the job runs; afterwards reads it once more. Shows this rank, unless the reader
  /// chose another.
  follow(runs, rank) {
    if (!this.chosen) this.rank.value = String(rank);
    if (runs && !this.timer) this.timer = setInterval(() => document.hidden || this.read(), EVERY);
    if (!runs) this.stop();
    this.read();
  }

  choose() {
    this.chosen = true;
    this.read();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }

  async read() {
    const rank = this.rank.value;
    const query = rank === "" ? "tail=100" : `tail=500&rank=${rank}`;
    try {
      const { lines } = await fetchJson(`/api/jobs/${encodeURIComponent(this.id)}/logs?${query}`);
      // Another rank may have been chosen meanwhile.
      if (rank !== this.rank.value) return;
      this.lines = lines.map((line) => (rank === "" ? `[${line.rank}] ${line.text}` : line.text));
      this.show();
    } catch (error) {
      fill(this.text, error.message);
    }
  }

  /// Shows the lines that are wanted; who reads the end stays at the end.
  show() {
    const wanted = this.find.value.toLowerCase();
    const shown = this.lines.filter((line) => line.toLowerCase().includes(wanted));
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 20;
    const nothing = this.lines.length === 0 ? "Nothing yet." : "No line has that.";
    say(this.text, shown.length > 0 ? shown.join("\n") : nothing);
    if (atEnd) this.text.scrollTop = this.text.scrollHeight;
  }
}
