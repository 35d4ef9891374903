// Logging in with a token, where the coordinator asks for one.

import { element, fill } from "./dom.js";
import { post } from "./server.js";

/// Shows the form; `entered` is called when the token was right.
export function showLogin(main, entered) {
  const token = element("input", {
    id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const said = element("p", { role: "alert", class: "trouble", hidden: true });
  const button = element("button", { type: "submit" }, "Log in");

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await post("/api/login", { token: token.value });
      entered();
    } catch (error) {
      said.textContent = error.message;
      said.hidden = false;
      token.focus();
    }
    button.disabled = false;
  }

  const hint = "This coordinator asks for a token. Whoever runs it makes one with squad-coordinator token create.";
  fill(main,
    element("h1", {}, "Log in"),
    element("p", {}, hint),
    element("form", { class: "login", submit }, element("label", { for: "token" }, "Token"), token, button),
    said);
  token.focus();
}
