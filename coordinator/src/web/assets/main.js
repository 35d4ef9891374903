// Which page is shown: the part of the address behind `#` says.

import { element, fill, say } from "./dom.js";
import { fetchJson, post } from "./server.js";
import { showJob } from "./job.js";
import { showJobs } from "./jobs.js";
import { showLogin } from "./login.js";

const main = document.getElementById("main");
let leave = () => {};
let about = null;
let shown = false;
let stranger = false;

/// Shows the page of the address. A page gives a function that ends what it began.
async function route() {
  if (location.hash === "#main") return main.focus();
  leave();
  leave = () => {};
  scrollTo(0, 0);
  if (!about) await introduce();
  if (stranger) return;
  // Who came here by the keyboard starts at the content; not on the first page, which the browser starts.
  if (shown) main.focus({ preventScroll: true });
  shown = true;
  const job = location.hash.match(/^#\/jobs\/(.+)$/);
  if (job) {
    leave = showJob(main, decodeURIComponent(job[1]), about);
  } else if (["", "#", "#/"].includes(location.hash)) {
    leave = showJobs(main);
  } else {
    fill(main, element("h1", {}, "There is no such page"), element("p", {}, element("a", { href: "#/" }, "All jobs")));
  }
}

async function introduce() {
  try {
    about = await fetchJson("/api/about");
    say(document.getElementById("about"), `version ${about.version} · ${about.slots} slots`);
    const out = element("button", { click: leaveForGood }, "Log out");
    fill(document.getElementById("user"), about.user ? `${about.user} ` : null, about.user ? out : null);
  } catch {
    // The page shows that the coordinator does not answer; until it does, nothing can be changed.
  }
}

/// Logs out, and shows the form to log in again.
async function leaveForGood() {
  await post("/api/logout").catch(() => {});
  dispatchEvent(new Event("stranger"));
}

// The coordinator asks who this is, or does not know it any more.
addEventListener("stranger", () => {
  if (stranger) return;
  stranger = true;
  about = null;
  leave();
  leave = () => {};
  fill(document.getElementById("user"));
  showLogin(main, () => {
    stranger = false;
    route();
  });
});
addEventListener("hashchange", () => stranger || route());
route();
