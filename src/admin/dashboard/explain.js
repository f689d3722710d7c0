// Where a statement would go, and why: asks /explain.

import { bytes, make, time } from "./words.js";

export class Explain {
  #form;
  #place;

  constructor(form, place) {
    this.#form = form;
    this.#place = place;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    form.elements.sql.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }

  async #ask() {
    const given = new FormData(this.#form);
    const sql = String(given.get("sql")).trim();
    if (!sql) return this.#form.elements.sql.focus();
    const question = new URLSearchParams({ sql });
    for (const name of ["database", "user"]) if (given.get(name)) question.set(name, given.get(name));
    try {
      const answer = await fetch(`explain?${question}`);
      const said = await answer.json();
      this.#place.replaceChildren(...(answer.ok ? explained(said) : refused(said)));
    } catch (error) {
      this.#place.replaceChildren(make("p", { class: "bad", text: `No answer: ${error.message}` }));
    }
  }
}

function refused(said) {
  const { message, hint } = said.error ?? { message: "no answer", hint: "" };
  return [make("p", { class: "bad", text: message }), make("p", { class: "faint", text: hint })];
}

function explained(said) {
  const verdict = { primary: "goes to the primary", replica: "goes to a replica", none: "is refused" }[said.target] ?? said.target;
  const nodes = said.nodes.map((node) => {
    const lag = !node.lag_bytes ? "" : ` (${bytes(node.lag_bytes)}, ${time(node.lag_ms)} behind)`;
    return make("li", { class: node.rejected ? "no" : "yes" }, make("b", { text: node.id }), ` ${node.rejected ?? "may serve it"}${lag}`);
  });
  return [
    make("p", { class: `verdict ${said.target}` }, make("strong", { text: `It ${verdict}` }), ` · ${said.class}, ${said.consistency} consistency`),
    make("ul", { class: "because" }, ...said.reasons.map((reason) => make("li", { text: reason }))),
    make("ul", { class: "places" }, ...nodes),
  ];
}
