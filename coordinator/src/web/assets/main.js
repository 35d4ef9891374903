// Which page is shown: the part of the address behind `#` says.

import { element, fill, say } from "./dom.js";
import { fetchJson } from "./server.js";
import { showJob } from "./job.js";
import { showJobs } from "./jobs.js";

const main = document.getElementById("main");
let leave = () => {};
let about = null;
let shown = false;

/// Shows the page of the address. A page gives a function that ends what it began.
async function route() {
  if (location.hash === "#main") return main.focus();
  leave();
  leave = () => {};
  scrollTo(0, 0);
  if (!about) await introduce();
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
  } catch {
    // The page shows that the coordinator does not answer; until it does, nothing can be changed.
  }
}

addEventListener("hashchange", route);
route();
