// The coordinator's page in a real browser, from the first look to a cancelled job, with played workers.
//
//   npm install --prefix tests/browser
//   cargo build -p squad-coordinator -p squadctl --bins --examples
//   node tests/browser/page.mjs [--shots FOLDER] [--programs target/debug] [--browser /usr/bin/chromium]
//
// Leaves a picture of every view in FOLDER (target/browser), in light and dark, wide and as on a phone.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options } = parseArgs({ options: {
  shots: { type: "string", default: "target/browser" },
  programs: { type: "string", default: "target/debug" },
  browser: { type: "string", default: "/usr/bin/chromium" },
} });
const programs = resolve(options.programs);
const folder = mkdtempSync(join(tmpdir(), "squadron-browser-"));
mkdirSync(options.shots, { recursive: true });

/// Starts a coordinator; gives its process and the addresses of its services and of its page.
async function startCoordinator(web = "127.0.0.1:0") {
  const child = spawn(join(programs, "squad-coordinator"), ["serve", "--listen", "127.0.0.1:0", "--web", web,
    "--slots", "2", "--root", folder, "--state", join(folder, "state"),
    "--worker", join(programs, "examples/fake_worker")], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  const page = await new Promise((found, failed) => {
    child.stderr.on("data", (text) => {
      said += text;
      const match = said.match(/the page is at (http:\/\/\S+)\//);
      if (match) found(match[1]);
    });
    child.on("exit", () => failed(new Error(`the coordinator ended: ${said}`)));
  });
  return { child, page, server: said.match(/listening on ([\d.]+:\d+)/)[1] };
}

/// Submits a job; the first word of its name says what its workers do (fake_worker.rs). Gives its identifier.
function submit(server, name, restarts = 0) {
  const spec = join(folder, `${name}.json`);
  writeFileSync(join(folder, "train.json"), "{}");
  writeFileSync(spec, JSON.stringify({ name, model: "some/model", data: { train: "train.json" },
    resources: { workers: 2 }, fault: { patience_s: 10, max_restarts: restarts }, output_dir: `out/${name}` }));
  return execFileSync(join(programs, "squadctl"), ["submit", spec, "--server", server]).toString().trim();
}

const shot = (page, name) => page.screenshot({ path: join(options.shots, `${name}.png`), fullPage: true });

/// Everything that a user does, in one walk.
async function walk(browser, { page: url, server }) {
  const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => assert.ok(request.url().startsWith(url), `${request.url()} is not ours`));

  await page.goto(url);
  await page.getByText("squadctl submit job.yaml").waitFor();
  await shot(page, "empty");

  const shown = submit(server, "show-bert-base");
  await page.getByRole("link", { name: "show-bert-base" }).click();
  await page.getByText(/train 1\d\d of 240/).waitFor();
  await page.getByText("left").waitFor();
  const loss = page.getByRole("img", { name: /^Loss over/ });
  await loss.hover();
  await page.getByText(/^step \d+: /).waitFor();
  await shot(page, "running");
  await page.getByText("EM").first().waitFor();
  assert.equal(await page.locator(".large").first().textContent(), "71.85");
  await page.getByText("checkpoint of step 240 written").waitFor();
  await keyboard(page, loss);
  await curves(page);
  await ask(page);
  await shot(page, "finished");
  await page.reload();
  await page.getByRole("img", { name: /^Loss over 240 steps/ }).waitFor();

  const crashed = submit(server, "crash-on-purpose");
  await page.goto(`${url}/#/jobs/${crashed}`);
  await page.getByRole("region", { name: "Why it failed" }).waitFor();
  const told = await page.locator(".failure").textContent();
  assert.match(told, /SQ-007 the loss is not finite.*lower train\.learning_rate/s);
  assert.equal(await page.locator("#rank").inputValue(), "1", "the log of the rank that failed is shown");
  await page.getByText("What SQ-007 means").click();
  await page.getByRole("heading", { name: "Usual causes" }).waitFor();
  await shot(page, "failed");

  await page.goto(`${url}/#/jobs/${submit(server, "frail-worker", 1)}`);
  await page.getByText("restarting: SQ-004 rank 1").waitFor();
  await page.getByText("succeeded: all workers completed").waitFor();
  await page.getByRole("region", { name: "Results" }).waitFor();
  assert.equal(await page.getByText("Precision and recall").count(), 0, "version 1.1 has no such curves");
  await page.getByRole("img", { name: /^Loss over 5 steps/ }).waitFor();
  await cancel(page, url, server);
  const later = [submit(server, "show-albert"), submit(server, "hold-the-queue")];
  await page.goto(`${url}/#/`);
  await page.getByText(/train \d+ of 240 · .* left/).waitFor();
  await page.getByText("waits for 2 slots, 0 are free").waitFor();
  await page.getByText("2 of 2 slots in use").waitFor();
  const names = await page.locator(".job .what a").allTextContents();
  const submitted = ["show-bert-base", "crash-on-purpose", "frail-worker", "hold-on", "show-albert", "hold-the-queue"];
  assert.deepEqual(names, submitted.reverse(), "the newest is first");
  await shot(page, "list");
  for (const job of later) execFileSync(join(programs, "squadctl"), ["cancel", job, "--server", server]);
  assert.deepEqual(wrong, [], "the browser has nothing to complain of");
  await page.close();
  return { shown, crashed };
}

/// A plot is read with the arrow keys, and what has the focus is seen.
async function keyboard(page, plot) {
  await plot.focus();
  await page.keyboard.press("Home");
  await page.getByText("step 1: 4.").waitFor();
  await page.keyboard.press("ArrowRight");
  await page.getByText("step 3: ").waitFor();
  assert.notEqual(await plot.evaluate((node) => getComputedStyle(node).outlineStyle), "none");
}

/// The precision-recall curves have a text, are read with the arrow keys, and are there as a table.
async function curves(page) {
  const curve = page.getByRole("img", { name: /^Precision over recall. Average precision: Exact match [\d.]+ %, F1 [\d.]+ %/ });
  await curve.focus();
  await page.keyboard.press("End");
  await page.getByText("F1 at threshold 1.0000: recall 77.0 %, precision ").waitFor();
  await page.keyboard.press("Home");
  await page.getByText("F1 at threshold none: recall 0.0 %").waitFor();
  assert.equal(await curve.locator("path").count(), 2);
  await page.getByText("The curves as a table").click();
  assert.equal(await page.getByRole("region", { name: "Points of the curves" }).getByRole("row").count(), 23);
}

async function ask(page) {
  await page.getByLabel("Question").fill("Who wrote it?");
  await page.getByLabel("Text that holds the answer").fill("Ada wrote <b>it</b> in 1843 🙂.");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.getByText("with probability 90.0 %").waitFor();
  assert.equal(await page.locator("mark").textContent(), "Ada");
  assert.equal(await page.locator("blockquote b").count(), 0, "a text is never markup");
}

async function cancel(page, url, server) {
  const held = submit(server, "hold-on");
  await page.goto(`${url}/#/jobs/${held}`);
  await page.getByText("running", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Cancel the job" }).click();
  await shot(page, "cancel");
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
  assert.equal(await page.locator(".state").textContent(), "running", "Escape keeps the job");
  await page.getByRole("button", { name: "Cancel the job" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel the job" }).click();
  await page.getByText("cancelled", { exact: true }).waitFor();
}

/// The same views in the dark, and on a phone, where nothing may be wider than the screen. In all of them the rules of
/// axe hold: contrast, names, landmarks, order of headings.
async function looks(browser, url, { shown, crashed }) {
  const views = { list: "", finished: `#/jobs/${shown}`, failed: `#/jobs/${crashed}` };
  const screens = {
    light: { viewport: { width: 1200, height: 800 } },
    dark: { viewport: { width: 1200, height: 800 }, colorScheme: "dark" },
    phone: { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
  };
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  for (const [screen, settings] of Object.entries(screens)) {
    // The page's own rules would keep the checker's script out.
    const context = await browser.newContext({ ...settings, bypassCSP: true });
    for (const [view, hash] of Object.entries(views)) {
      const page = await context.newPage();
      await page.goto(`${url}/${hash}`);
      await page.locator(hash ? ".log" : ".job").first().waitFor();
      await page.waitForLoadState("load");
      await page.waitForTimeout(300);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= settings.viewport.width, `${view} on ${screen} is ${width} wide`);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], `${view} on ${screen}`);
      await shot(page, `${view}-${screen}`);
      await page.close();
    }
    await context.close();
  }
}

/// A coordinator that is gone is said to be so, and an open page goes on with the next one. Gives that.
async function gone(browser, { page: url, child }) {
  const page = await browser.newPage();
  await page.goto(url);
  await page.locator(".job").first().waitFor();
  const ended = new Promise((done) => child.on("exit", done));
  child.kill("SIGTERM");
  await page.getByText("The coordinator does not answer.").waitFor();
  assert.equal(await ended, 0, "an open page does not keep the coordinator from ending");
  const next = await startCoordinator(new URL(url).host);
  await page.locator("#trouble").waitFor({ state: "hidden" });
  submit(next.server, "succeed-after-all");
  await page.getByRole("link", { name: "succeed-after-all" }).waitFor();
  await page.close();
  return next;
}

let coordinator = await startCoordinator();
// A browser that asks for nothing but the page.
const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
const browser = await chromium.launch({ executablePath: options.browser, args: ["--no-sandbox", "--disable-gpu", ...quiet] });
try {
  const jobs = await walk(browser, coordinator);
  await looks(browser, coordinator.page, jobs);
  coordinator = await gone(browser, coordinator);
  console.log(`the page does what it should; pictures are in ${options.shots}`);
} finally {
  await browser.close();
  coordinator.child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
