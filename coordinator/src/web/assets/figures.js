// Numbers as people read them.

/// A span of time, such as "2 min 31 s".
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 10) return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/// How long ago a moment was.
export function ago(unixMs) {
  const ms = Date.now() - unixMs;
  return ms < 10000 ? "just now" : `${duration(ms)} ago`;
}

/// A moment in the reader's time zone.
export function moment(unixMs) {
  return new Date(unixMs).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

/// A number with about four digits that count.
export function short(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return Number(value.toPrecision(4)).toString();
}

/// A whole number with its thousands apart.
export function count(value) {
  return value.toLocaleString("en");
}

/// Bytes, such as "886 MiB".
export function bytes(value) {
  return value < 2 ** 30 ? `${Math.round(value / 2 ** 20)} MiB` : `${(value / 2 ** 30).toFixed(2)} GiB`;
}

/// How fast a phase goes, by when its reports came; the first ones of a longer window are forgotten.
export class Pace {
  constructor() {
    this.reports = [];
    this.phase = "";
  }

  /// Takes a report in; gives the milliseconds that are left, once two reports tell a speed.
  observe(unixMs, progress) {
    const phase = `${progress.phase} ${progress.label ?? ""}`;
    const last = this.reports.at(-1);
    if (phase !== this.phase || (last && last.done > progress.done)) this.reports = [];
    this.phase = phase;
    if (this.reports.at(-1)?.done !== progress.done) this.reports.push({ at: unixMs, done: progress.done });
    if (this.reports.length > 30) this.reports.shift();
    const first = this.reports[0];
    const newest = this.reports.at(-1);
    const made = newest.done - first.done;
    const left = progress.total - progress.done;
    return made > 0 && left > 0 ? ((newest.at - first.at) * left) / made : null;
  }
}

/// What a job does, such as "train 120 of 540".
export function position(progress) {
  const label = progress.label ? ` ${progress.label}` : "";
  return `${progress.phase}${label} ${count(progress.done)} of ${count(progress.total)}`;
}

/// How much of what there is for workers is in use.
export function use({ slots, slots_held, gpus, gpus_held }) {
  const gpu = gpus === null ? "" : ` · ${count(gpus_held)} of ${count(gpus)} GPUs`;
  return `${count(slots_held)} of ${count(slots)} slots${gpu} in use`;
}

/// How long a job took, or takes until now.
export function taken(job) {
  if (!job.started_unix_ms) return "";
  return duration((job.finished_unix_ms ?? Date.now()) - job.started_unix_ms);
}

/// Whether nothing more will happen to a job.
export function isFinal(state) {
  return ["succeeded", "failed", "cancelled"].includes(state);
}
