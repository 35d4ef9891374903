// One job.

import { askSection } from "./ask.js";
import { Bar, badge, element, facts, fill, say, section, table } from "./dom.js";
import { failureSection } from "./failure.js";
import { Pace, ago, count, duration, isFinal, moment, position, short, taken } from "./figures.js";
import { Logs } from "./logs.js";
import { Plot } from "./plot.js";
import { resultsSection } from "./results.js";
import { fetchJson, follow, post } from "./server.js";

/// What is drawn, of a progress report's figures.
const PLOTS = [
  ["loss", "Loss"],
  ["learning_rate", "Learning rate"],
  ["examples_per_second", "Examples a second"],
  ["grad_norm", "Norm of the gradient"],
  ["tokens_per_second", "Tokens a second"],
  ["allreduce_share", "Share of the time in all-reduce"],
  ["loss_scale", "Loss scale"],
];

/// Shows a job, and keeps it up to date. Gives a function that ends that.
export function showJob(main, id, about) {
  document.title = `${id} · Squadron`;
  fill(main, element("p", { class: "quiet" }, "Asking the coordinator …"));
  let page = null;
  let stop = () => {};
  let left = false;
  fetchJson(`/api/jobs/${encodeURIComponent(id)}`).then((job) => {
    if (left) return;
    page = new JobPage(main, job, about?.may_change ?? false);
    stop = follow(() => `/api/jobs/${encodeURIComponent(id)}/live?after=${page.sequence}`, {
      history: (events) => page.history(events),
      job: (now) => page.update(now),
    });
  }).catch((error) => {
    fill(main, element("h1", {}, "This job cannot be shown"), element("p", {}, `${error.message}.`),
      element("p", {}, element("a", { href: "#/" }, "All jobs")));
  });
  return () => {
    left = true;
    stop();
    page?.logs.stop();
  };
}

class JobPage {
  constructor(main, job, mayChange) {
    this.id = job.id;
    this.mayChange = mayChange;
    this.sequence = 0;
    this.pace = new Pace();
    this.remaining = null;
    this.reports = [];
    this.drawing = null;
    this.plots = PLOTS.map(([key, title]) => [key, new Plot(title)]);
    this.logs = new Logs(job.id, job.workers);
    this.parts = Object.fromEntries(["head", "outcome", "ranks", "ask"].map((name) => [name, element("div")]));
    this.bar = new Bar();
    this.doing = element("p", { class: "doing" });
    this.progress = section("Progress", this.bar.node, this.doing);
    this.noPlots = element("p", { class: "quiet" }, "No step was reported yet.");
    this.events = element("ol", { class: "events" });
    const figures = this.plots.map(([, plot]) => plot.node);
    const curves = section("Training", this.noPlots, element("div", { class: "plots" }, ...figures));
    const spec = element("details", { class: "card" }, element("summary", {}, "Spec, with all defaults"),
      element("pre", { tabindex: "0" }, JSON.stringify(job.spec, null, 2)));
    fill(main, element("p", {}, element("a", { href: "#/" }, "← All jobs")), this.parts.head, this.progress,
      this.parts.outcome, this.parts.ask, curves, this.parts.ranks, this.logs.node, section("History", this.events), spec);
    this.update(job);
  }

  /// Takes the job as it is now.
  update(job) {
    const before = this.job;
    this.job = job;
    if (!before || ["state", "reason", "waits"].some((key) => before[key] !== job[key])) this.showState(job);
    say(this.since, ago(job.created_unix_ms));
    say(this.span, taken(job) || "–");
    this.showProgress(job);
    this.showRanks(job);
  }

  /// What changes only with the state: heading, outcome, and whether the log is followed.
  showState(job) {
    this.since = element("time", { title: moment(job.created_unix_ms) });
    this.span = element("span");
    const cancel = this.mayChange && !isFinal(job.state) && job.state !== "stopping" &&
      element("button", { class: "danger", type: "button", click: () => this.confirm() }, "Cancel the job");
    fill(this.parts.head,
      element("div", { class: "title" }, element("h1", {}, job.name), badge(job.state), cancel),
      !job.failure && element("p", { class: "reason" }, job.waits ?? job.reason), facts([
        ["Job", job.id],
        ["Workers", count(job.workers)],
        ["Priority", String(job.priority)],
        ["GPUs", job.gpus.join(", ")],
        ["Submitted", this.since],
        [isFinal(job.state) ? "Took" : "Runs for", this.span],
        ["Model", job.spec.model],
        ["Output", job.output_dir],
      ]));
    fill(this.parts.outcome, job.failure && failureSection(job.failure), job.results && resultsSection(job.results));
    fill(this.parts.ask, this.mayChange && job.state === "succeeded" && askSection(job.id));
    this.logs.follow(!isFinal(job.state), job.failure?.rank ?? 0);
  }

  showProgress(job) {
    this.progress.hidden = isFinal(job.state) || !job.progress;
    if (!job.progress) return;
    const parts = [position(job.progress), this.remaining !== null && `${duration(this.remaining)} left`,
      job.progress.loss !== undefined && `loss ${short(job.progress.loss)}`,
      job.progress.examples_per_second !== undefined && `${short(job.progress.examples_per_second)} examples/s`];
    say(this.doing, parts.filter(Boolean).join(" · "));
    this.bar.update(job.progress.done, job.progress.total, position(job.progress));
  }

  showRanks(job) {
    const rows = job.ranks.map((rank) => [
      String(rank.rank), rank.stage, rank.phase ?? "–", rank.done === null ? "–" : count(rank.done),
      isFinal(job.state) ? "–" : ago(rank.heard_unix_ms),
    ]);
    if (!this.ranksNode && rows.length > 0) {
      this.ranksNode = section("Ranks", table("The workers, by rank", ["Rank", "State", "Phase", "Done", "Heard of"], rows));
      fill(this.parts.ranks, this.ranksNode);
    } else if (this.ranksNode) {
      const body = this.ranksNode.querySelector("tbody");
      rows.forEach((cells, at) => cells.forEach((text, column) => say(body.rows[at].cells[column], text)));
    }
  }

  /// Takes events in, each once, whatever was sent again.
  history(events) {
    const fresh = events.filter((event) => event.sequence > this.sequence);
    if (fresh.length === 0) return;
    this.sequence = fresh.at(-1).sequence;
    for (const event of fresh) {
      if (event.event === "progress") this.report(event);
      else this.line(event);
    }
    // A long history comes in many parts: it is drawn once for each picture of the screen.
    this.drawing ??= requestAnimationFrame(() => this.draw());
  }

  report(event) {
    this.remaining = this.pace.observe(event.unix_ms, event);
    if (event.phase !== "train") return;
    // A gang that was started again goes back to a checkpoint: what came after it is done anew.
    while (this.reports.length > 0 && this.reports.at(-1).done >= event.done) this.reports.pop();
    this.reports.push(event);
  }

  line(event) {
    const texts = {
      state: () => `${event.state}: ${event.reason}`,
      note: () => (event.rank === undefined ? event.text : `rank ${event.rank}: ${event.text}`),
      failure: () => `failure ${event.code}: ${event.summary}`,
      results: () => "results are there",
    };
    const text = texts[event.event]?.() ?? event.event;
    const time = element("time", { title: moment(event.unix_ms) }, new Date(event.unix_ms).toLocaleTimeString());
    this.events.append(element("li", {}, time, " ", text));
  }

  draw() {
    this.drawing = null;
    for (const [key, plot] of this.plots) {
      const known = this.reports.filter((report) => Number.isFinite(report[key]));
      const points = known.map((report) => [report.done, report[key]]);
      // Without half precision the loss is not scaled: there is nothing to be seen.
      const idle = key === "loss_scale" && points.every(([, scale]) => scale === 1);
      plot.set(idle ? [] : points);
    }
    this.noPlots.hidden = this.reports.length > 0;
  }

  /// Asks before a job is cancelled.
  confirm() {
    const close = () => dialog.close();
    const cancel = async () => {
      try {
        this.update(await post(`/api/jobs/${encodeURIComponent(this.id)}/cancel`));
        close();
      } catch (error) {
        fill(wrong, error.message);
      }
    };
    const wrong = element("p", { class: "wrong", role: "alert" });
    const dialog = element("dialog", { "aria-labelledby": "sure", close: () => dialog.remove() },
      element("h2", { id: "sure" }, `Cancel ${this.job.name}?`),
      element("p", {}, "Its workers stop at the end of the step that they are at. This cannot be taken back."), wrong,
      element("div", { class: "controls" },
        element("button", { type: "button", click: close, autofocus: true }, "Keep it running"),
        element("button", { type: "button", class: "danger", click: cancel }, "Cancel the job")));
    document.body.append(dialog);
    dialog.showModal();
  }
}
