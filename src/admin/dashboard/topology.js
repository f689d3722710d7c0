// The nodes as cards, the primary left of those that follow it, and what is to be said of the cluster as a whole.

import { bytes, draw, facts, keyed, make, rate, roughly, say, show, time } from "./words.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const at = (id) => document.getElementById(id);

export class Topology {
  #orders;
  #cluster = null;
  #figures = null;
  #place = at("topology");
  #lines = at("topology").querySelector(".lines");
  #leader = null;

  constructor(orders) {
    this.#orders = orders;
    new ResizeObserver(() => this.#join()).observe(this.#place);
  }

  cluster(cluster) {
    this.#cluster = cluster;
    const leader = cluster.primary ?? cluster.leader;
    const before = leader !== this.#leader && this.#leader !== null ? this.#positions() : null;
    this.#leader = leader;
    this.#place.style.setProperty("--followers", String(Math.max(1, cluster.nodes.length - 1)));
    this.#place.classList.toggle("leaderless", !cluster.nodes.some((node) => node.id === leader));
    keyed(this.#place, cluster.nodes, (node) => node.id, (node) => this.#card(node), (card, node) => this.#fill(card, node));
    this.#facts();
    this.#banner();
    if (before && !calm.matches) this.#glide(before);
    this.#join();
  }

  figures(figures) {
    this.#figures = figures;
    if (!this.#cluster) return;
    for (const node of this.#cluster.nodes) {
      const card = [...this.#place.children].find((child) => child.dataset.key === node.id);
      if (card) this.#measure(card, node);
    }
    this.#banner();
  }

  // --- the whole ---------------------------------------------------------------------------------------------------

  #facts() {
    const { epoch, phase, durability, voters, acks, paused, primary } = this.#cluster;
    const vote = voters.length ? `${acks} of ${voters.join(", ")}` : "none";
    facts(at("facts"), [
      ["Primary", primary ?? "none", "", primary ? "" : "bad"],
      ["Epoch", epoch === null ? "–" : String(epoch), phase ?? "not begun", phase === "stable" ? "" : "warn"],
      ["Durability", durability, durability === "quorum" ? "a commit is on a standby’s disk too" : "a commit is on the primary’s disk"],
      ["Voters", vote, voters.length ? "have to confirm a commit" : "nobody has to confirm a commit"],
      ["Changes of primary", paused ? "paused" : "automatic", paused ? "at an operator’s wish" : "", paused ? "warn" : ""],
    ]);
    say(at("pause"), paused ? "Resume …" : "Pause …");
  }

  /** Nobody takes writes: said first, with how long and why. */
  #banner() {
    const { primary, nodes, reason, paused } = this.#cluster;
    const node = nodes.find((node) => node.id === primary);
    const isSilent = node && node.state !== "running";
    const closed = this.#figures?.closed_ms ?? null;
    let text = "";
    if (!node) {
      const how = closed === null ? "Nobody takes writes." : `Nobody has taken writes for ${roughly(closed)}.`;
      const held = this.#figures?.held.statements ?? 0;
      text = `${how} ${held ? `${held} statements wait. ` : ""}${reason}`;
    } else if (isSilent) {
      text = `The primary ${primary} ${node.reason || "does not answer"}.`;
    } else if (reason) {
      text = reason;
    } else if (paused) {
      text = "Changes of primary are paused: if the primary fails now, nobody takes its place until it is resumed.";
    }
    const banner = at("banner");
    banner.classList.toggle("mild", Boolean(node) && !isSilent);
    say(banner, text.trim());
    show(banner, text !== "");
  }

  // --- one node ----------------------------------------------------------------------------------------------------

  #card(node) {
    const button = (name, label, act) => make("button", { type: "button", class: `quiet ${name}`, text: label, onclick: () => act(this.#node(node.id)) });
    const card = make("article", { class: "node", "aria-label": node.id },
      make("header", {}, make("h3", { text: node.id }), make("span", { class: "role" }), make("span", { class: "state" })),
      make("p", { class: "address" }),
      make("dl", { class: "measures" }),
      make("p", { class: "reads" }),
      make("p", { class: "agent" }),
      make("div", { class: "actions" },
        button("promote", "Make primary …", (node) => this.#orders.switchover(node.id)),
        button("maintenance", "Maintenance …", (node) => this.#orders.maintenance(node)),
        button("rejoin", "Rejoin …", (node) => this.#orders.rejoin(node))));
    return card;
  }

  #node(id) {
    return this.#cluster.nodes.find((node) => node.id === id);
  }

  #fill(card, node) {
    const isPrimary = node.id === this.#cluster.primary;
    const isLeader = node.id === this.#leader;
    const part = (name) => card.querySelector(name);
    const role = isPrimary ? "primary" : node.role === "replica" ? "replica" : "apart";
    const name = `node ${isLeader ? "leader" : "follower"} ${role} ${node.state}`;
    if (card.className !== name) card.className = name;
    say(part(".role"), isPrimary ? "primary" : isLeader ? "was the primary" : node.role === "primary" ? "says primary" : node.role === "replica" ? "replica" : "standby");
    say(part(".state"), node.state);
    say(part(".address"), `${node.host}:${node.port}`);
    this.#measure(card, node);

    const reads = part(".reads");
    const isGood = node.eligible || isPrimary && node.state === "running";
    const text = isPrimary && node.state === "running" ? "takes writes" : node.eligible ? "serves reads" : `no reads: ${node.reason || "not known"}`;
    say(reads, text);
    reads.classList.toggle("good", isGood);
    // As a mark, too: colour alone says nothing to some.
    reads.dataset.mark = isGood ? "✓" : "✕";

    const agent = node.agent;
    const said = agent ? [`agent ${agent.state}`, agent.step, agent.trouble].filter(Boolean).join(" — ") : "no agent";
    say(part(".agent"), said);
    part(".agent").classList.toggle("bad", Boolean(agent && (agent.trouble || agent.state === "silent")));
    part(".agent").classList.toggle("busy", Boolean(agent?.step));

    const promote = part(".promote");
    show(promote, !isPrimary);
    promote.disabled = Boolean(node.not_promotable);
    promote.title = node.not_promotable ? `It ${node.not_promotable}.` : "";
    show(part(".rejoin"), !isPrimary);
    show(part(".maintenance"), !isPrimary);
    say(part(".maintenance"), node.state === "maintenance" ? "End maintenance …" : "Maintenance …");
  }

  #measure(card, node) {
    const figures = this.#figures?.nodes.find((other) => other.id === node.id);
    const isPrimary = node.id === this.#cluster.primary;
    const measures = [
      ["LSN", node.lsn],
      ["Timeline", String(node.timeline)],
      ["Lag", isPrimary ? "none" : node.lag_bytes === null ? "unknown" : node.lag_bytes ? bytes(node.lag_bytes) : "none", !isPrimary && node.lag_ms ? time(node.lag_ms) : ""],
      isPrimary
        ? ["Transactions", this.#figures?.rates ? `${rate(this.#figures.rates.primary)}/s` : "–"]
        : ["Reads", figures && figures.reads_per_second !== null ? `${rate(figures.reads_per_second)}/s` : "–", figures?.read_ms && node.eligible ? time(figures.read_ms) : ""],
    ];
    facts(card.querySelector(".measures"), measures);
  }

  // --- lines and movement --------------------------------------------------------------------------------------------

  #positions() {
    return new Map([...this.#place.querySelectorAll(".node")].map((card) => [card, card.getBoundingClientRect()]));
  }

  /** Cards go to their new places where one can see them go: who was the primary and who is. */
  #glide(before) {
    for (const [card, from] of before) {
      const to = card.getBoundingClientRect();
      const move = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
      if (from.left !== to.left || from.top !== to.top) {
        card.animate([{ transform: move }, { transform: "none" }], { duration: 600, easing: "cubic-bezier(.2, .7, .2, 1)" });
      }
    }
  }

  #join() {
    const leader = this.#place.querySelector(".node.leader");
    const box = this.#place.getBoundingClientRect();
    const paths = [];
    if (leader && this.#cluster) {
      const [left, top, right, bottom] = edges(leader);
      for (const card of this.#place.querySelectorAll(".node.follower")) {
        const [l, t, , b] = edges(card);
        const isBeside = l > right;
        const follows = this.#cluster.primary !== null && card.classList.contains("running") && card.classList.contains("replica");
        const middle = (right + l) / 2;
        const path = isBeside
          ? `M${right} ${(top + bottom) / 2}C${middle} ${(top + bottom) / 2} ${middle} ${(t + b) / 2} ${l} ${(t + b) / 2}`
          : `M${left + 24} ${bottom}V${t}`;
        paths.push([card.dataset.key, path, follows ? "flows" : "broken"]);
      }
    }
    this.#lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    keyed(this.#lines, paths, ([key]) => key, () => draw("path"), (line, [, path, kind]) => {
      if (line.getAttribute("d") !== path) line.setAttribute("d", path);
      if (line.getAttribute("class") !== kind) line.setAttribute("class", kind);
    });
  }
}

/** Where it stands within what it stands in, whatever moves it just now. */
function edges(card) {
  return [card.offsetLeft, card.offsetTop, card.offsetLeft + card.offsetWidth, card.offsetTop + card.offsetHeight];
}
