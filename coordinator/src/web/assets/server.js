// Questions to the coordinator.

const trouble = document.getElementById("trouble");

/// Shows that the coordinator does not answer, or that it does again.
function reachable(yes) {
  trouble.hidden = yes;
  if (!yes) trouble.textContent = "The coordinator does not answer. This page goes on when it does.";
}

/// The JSON at a path. A refusal is thrown as an error with the coordinator's own sentence.
export async function fetchJson(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    reachable(false);
    throw new Error("the coordinator does not answer");
  }
  reachable(true);
  // What the server itself refuses, such as too large a request, is no JSON.
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  // Not known, or not any more. A login itself shows why it was refused.
  if (response.status === 401 && path !== "/api/login") dispatchEvent(new Event("stranger"));
  throw new Error(body.error ?? `the coordinator answers with status ${response.status}`);
}

/// Posts to a path what changes something.
export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return fetchJson(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

/// Follows a path: `handlers` has a function for each kind of event, which is given its content. A page that nobody
/// looks at does not hold a connection: `place` gives the path to go on with. Gives a function that ends it.
export function follow(place, handlers) {
  let source = null;
  let ended = false;

  function open() {
    if (source || ended || document.hidden) return;
    source = new EventSource(place());
    source.onopen = () => reachable(true);
    source.onerror = () => {
      reachable(false);
      // A browser tries again by itself, unless it was refused.
      if (source?.readyState === EventSource.CLOSED) {
        close();
        // Why, a stream does not tell: where a login is missing, this does.
        fetchJson("/api/about").catch(() => {});
        setTimeout(open, 3000);
      }
    };
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
    }
    source.addEventListener("end", stop);
  }

  function close() {
    source?.close();
    source = null;
  }

  function look() {
    if (document.hidden) close();
    else open();
  }

  function stop() {
    ended = true;
    close();
    document.removeEventListener("visibilitychange", look);
  }

  document.addEventListener("visibilitychange", look);
  open();
  return stop;
}
