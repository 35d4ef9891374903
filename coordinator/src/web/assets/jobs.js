// The list of jobs.

import { Bar, badge, element, fill, say } from "./dom.js";
import { Pace, ago, count, duration, isFinal, moment, position, taken, use } from "./figures.js";
import { follow } from "./server.js";

/// How often "3 min ago" is brought up to date.
const TICK = 5000;

/// Shows the list, and keeps it up to date. Gives a function that ends that.
export function showJobs(main) {
  document.title = "Jobs · Squadron";
  const body = element("ul", { class: "jobs", "aria-label": "Jobs, the newest first" });
  const more = element("p", { class: "quiet" });
  const room = element("span", { class: "quiet" });
  fill(main, element("div", { class: "title" }, element("h1", {}, "Jobs"), room), body, more);
  say(more, "Asking the coordinator …");
  const rows = new Map();
  let last = null;

  function show(list) {
    last = list;
    say(room, use(list.room));
    const nodes = list.jobs.map((job) => {
      if (!rows.has(job.id)) rows.set(job.id, new Row(job));
      return rows.get(job.id).update(job);
    });
    // The order changes only by new jobs: nodes that are there stay, and with them the focus.
    const same = nodes.length === body.children.length && nodes.every((node, at) => node === body.children[at]);
    if (!same) fill(body, ...nodes);
    const cut = list.total > list.jobs.length;
    if (list.total === 0) fill(more, ...emptiness());
    else say(more, cut ? `The newest ${list.jobs.length} of ${count(list.total)} jobs.` : "");
  }

  const stop = follow(() => "/api/live", { jobs: show });
  const timer = setInterval(() => last && show(last), TICK);
  return () => {
    stop();
    clearInterval(timer);
  };
}

function emptiness() {
  const command = element("code", {}, "squadctl submit job.yaml");
  return [element("strong", {}, "No jobs yet. "), "Submit one with ", command, "; it appears here at once."];
}

/// One job in the list.
class Row {
  constructor(job) {
    this.pace = new Pace();
    this.name = element("a", { href: `#/jobs/${encodeURIComponent(job.id)}` }, job.name);
    this.state = badge(job.state);
    this.bar = new Bar();
    this.doing = element("span", { class: "doing" });
    this.when = element("span", { class: "quiet" });
    this.node = element("li", { class: "card job" },
      element("div", { class: "what" }, this.name, element("span", { class: "quiet id" }, job.id)),
      this.state,
      element("div", { class: "progress" }, this.bar.node, this.doing),
      this.when);
  }

  update(job) {
    this.state.dataset.state = job.state;
    say(this.state, job.state);
    const bare = isFinal(job.state) || !job.progress;
    this.bar.node.hidden = bare || Boolean(job.waits);
    if (job.progress) this.bar.update(job.progress.done, job.progress.total, `${job.name}: ${position(job.progress)}`);
    say(this.doing, this.sentence(job));
    this.doing.title = job.reason;
    const workers = job.workers === 1 ? "1 worker" : `${count(job.workers)} workers`;
    const span = isFinal(job.state) && taken(job);
    const priority = job.priority !== 0 && `priority ${job.priority}`;
    say(this.when, [ago(job.created_unix_ms), span && `took ${span}`, workers, priority].filter(Boolean).join(" · "));
    this.when.title = `submitted ${moment(job.created_unix_ms)}`;
    return this.node;
  }

  /// What is most worth knowing of a job in its state.
  sentence(job) {
    if (job.state === "succeeded" && typeof job.f1 === "number") {
      return `EM ${job.exact.toFixed(2)} · F1 ${job.f1.toFixed(2)}`;
    }
    if (job.waits) return job.waits;
    if (isFinal(job.state) || !job.progress) return job.reason;
    const left = this.pace.observe(Date.now(), job.progress);
    return position(job.progress) + (left === null ? "" : ` · ${duration(left)} left`);
  }
}
