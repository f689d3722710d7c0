// What an operator orders: says what will happen, asks for the token if there is one, and tells what came of it.

import { bytes, make, moment, roughly, say, show, time } from "./words.js";

const TOKEN = "pgbaton-token";
/** How long the page says that something was done. */
const OUTCOME = 15000;

const at = (id) => document.getElementById(id);

export class Orders {
  #cluster = null;
  /** What the dialog is about: {path, body}; null while it is closed. */
  #order = null;
  #dialog = at("order");
  #form = at("order").querySelector("form");
  #isBusy = false;
  #forgets = 0;

  constructor() {
    at("order-cancel").addEventListener("click", () => this.#dialog.close());
    // The event comes later than the closing: by then the next one may have been opened.
    this.#dialog.addEventListener("close", () => {
      if (!this.#dialog.open) this.#order = null;
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#isBusy) this.#give();
    });
  }

  cluster(cluster) {
    this.#cluster = cluster;
  }

  // --- what can be ordered ---------------------------------------------------------------------------------------------

  /** To the node with this id, or to one that is chosen in the dialog. */
  switchover(id = null) {
    const { primary, nodes } = this.#cluster ?? { nodes: [] };
    const others = nodes.filter((node) => node.id !== primary);
    this.#open({
      title: "Switch over",
      text: `Open transactions may end, new ones wait; ${primary ?? "the primary"} is stopped cleanly, and once the next primary has everything it takes ` +
        "the writes. Sessions stay connected. What stands in the way is told before anything is touched.",
      choice: others,
      chosen: id,
      go: "Switch over",
      order: () => ({ path: "switchover", body: { to: this.#form.elements.to?.value || null } }),
    });
  }

  pause() {
    const isPaused = this.#cluster?.paused;
    this.#open({
      title: isPaused ? "Resume" : "Pause",
      text: isPaused
        ? "pgbaton changes the primary again when it has to, at once if the present one is gone."
        : "The primary stays who it is, whatever happens to it, until changes are resumed. If it fails meanwhile, nobody takes writes.",
      go: isPaused ? "Resume" : "Pause",
      order: () => ({ path: isPaused ? "resume" : "pause", body: {} }),
    });
  }

  maintenance({ id, state }) {
    const on = state !== "maintenance";
    this.#open({
      title: on ? `Maintenance of ${id}` : `End the maintenance of ${id}`,
      text: on
        ? `${id} gets no reads, has no vote, and is not promoted, until its maintenance is ended.`
        : `${id} gets reads again, may vote and may be promoted, once it has caught up.`,
      go: on ? "Begin" : "End",
      order: () => ({ path: `nodes/${encodeURIComponent(id)}/maintenance`, body: { on } }),
    });
  }

  rejoin({ id }) {
    this.#open({
      title: `Rejoin ${id}`,
      text: `Its agent makes ${id} a standby of the primary again: as it is, by pg_rewind, or by a copy of everything, whichever is the cheapest that is ` +
        "right. What only it had is kept aside and counted.",
      go: "Rejoin",
      order: () => ({ path: `nodes/${encodeURIComponent(id)}/rejoin`, body: {} }),
    });
  }

  // --- the token -------------------------------------------------------------------------------------------------------

  hasToken() {
    return sessionStorage.getItem(TOKEN) !== null;
  }

  forget() {
    sessionStorage.removeItem(TOKEN);
    show(at("forget"), false);
    this.#told("The token is forgotten.", "");
  }

  // --- the dialog ------------------------------------------------------------------------------------------------------

  #open({ title, text, go, order, choice = null, chosen = null }) {
    this.#order = order;
    say(at("order-title"), title);
    say(at("order-text"), text);
    say(at("order-go"), go);
    say(at("order-cancel"), "Cancel");
    this.#say("", "");
    show(at("order-go"), true);
    show(at("order-token"), false);
    show(at("order-choice"), choice !== null);
    at("order-choice").replaceChildren(at("order-choice").firstElementChild, ...(choice ?? []).map((node) => candidate(node, chosen)));
    if (choice && !this.#form.elements.to?.value) this.#form.querySelector("input[name=to]:enabled")?.click();
    this.#dialog.showModal();
    at("order-go").focus();
  }

  async #give() {
    const order = this.#order();
    const typed = this.#form.elements.token;
    if (typed.value) {
      // No header takes anything else, and no token has it.
      if (!/^[\x21-\x7e]+$/.test(typed.value)) return this.#say("A token has letters, digits and signs only.", "bad");
      sessionStorage.setItem(TOKEN, typed.value);
      typed.value = "";
    }
    const token = sessionStorage.getItem(TOKEN);
    const headers = { "Content-Type": "application/json" };
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    const isOurs = () => this.#order !== null && this.#dialog.open;
    this.#busy(true);
    const began = Date.now();
    const clock = setInterval(() => isOurs() && this.#progress(began), 250);
    this.#progress(began);
    let [text, tone, wantsToken] = ["", "bad", false];
    try {
      const answer = await fetch(order.path, { method: "POST", headers, body: JSON.stringify(order.body) });
      const said = await answer.json();
      if (answer.ok) [text, tone] = [`Done: ${said.done}`, "good"];
      else if (answer.status === 401) {
        text = token === null ? "This pgbaton wants to see its token before it does that." : "That is not its token.";
        wantsToken = true;
      } else text = `Refused: ${said.error.message}`;
    } catch (error) {
      text = `No answer: ${error.message}. Whether it was done, the cluster will show.`;
    }
    clearInterval(clock);
    this.#busy(false);
    if (wantsToken) sessionStorage.removeItem(TOKEN);
    show(at("forget"), this.hasToken());
    if (!isOurs()) return this.#told(text, tone);
    this.#say(text, tone);
    if (wantsToken) {
      show(at("order-token"), true);
      typed.focus();
    } else {
      show(at("order-go"), tone !== "good");
      say(at("order-cancel"), "Close");
      at("order-cancel").focus();
      if (tone === "good") this.#told(text, tone);
    }
  }

  #progress(began) {
    const { reason, phase } = this.#cluster ?? {};
    const what = reason || (phase && phase !== "stable" ? phase : "");
    this.#say(`Under way, ${time(Math.floor((Date.now() - began) / 100) * 100)}${what ? ` — ${what}` : ""} …`, "busy");
  }

  #busy(isBusy) {
    this.#isBusy = isBusy;
    at("order-go").disabled = isBusy;
    say(at("order-cancel"), isBusy ? "Leave it" : "Cancel");
  }

  #say(text, tone) {
    say(at("order-said"), text);
    at("order-said").className = `said ${tone}`;
  }

  /** On the page itself, for when the dialog is gone. */
  #told(text, tone) {
    clearTimeout(this.#forgets);
    say(at("outcome"), `${moment(Date.now())}  ${text}`);
    at("outcome").className = `outcome ${tone}`;
    show(at("outcome"), true);
    // What went wrong stays until the next order.
    if (tone !== "bad") this.#forgets = setTimeout(() => show(at("outcome"), false), OUTCOME);
  }
}

/** A node to choose, or why it cannot be. */
function candidate(node, chosen) {
  const isOut = Boolean(node.not_promotable);
  const behind = node.lag_ms === null ? "lag unknown" : node.lag_bytes ? `${bytes(node.lag_bytes)}, ${roughly(node.lag_ms)} behind` : "has everything";
  const input = make("input", { type: "radio", name: "to", value: node.id, disabled: isOut });
  input.checked = !isOut && node.id === chosen;
  return make("label", { class: isOut ? "out" : "" }, input, make("b", { text: node.id }), make("span", { text: isOut ? `cannot: ${node.not_promotable}` : behind }));
}
