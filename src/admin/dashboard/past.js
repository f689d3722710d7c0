// The history, newest first, with the phases of each change of primary as a bar; and how available it all was.

import { bytes, count, date, facts, keyed, make, say, show, time } from "./words.js";

const at = (id) => document.getElementById(id);

/** Entries that are shown before somebody asks for more. */
const FEW = 5;
const WINDOWS = ["1h", "24h", "30d", "365d"];
/** Availability is asked for again so often: it moves slowly. */
const ASK = 10000;

/** Kinds of epochs that nobody has to worry about. */
const ORDERED = ["adoption", "switchover", "order", "command"];

const PHASES = {
  detect: "noticing that the primary is gone",
  checkpoint: "a checkpoint beforehand, so that the stop is short",
  drain: "letting open transactions end",
  stop: "stopping the old primary",
  recruit: "stopping the standbys from listening to the old primary",
  settle: "replaying what was received",
  promote: "making the new primary one",
  follow: "the others following it",
  open: "letting writes go on",
};

export class Past {
  #entries = new Map();
  #isLong = false;
  #now = Date.now();
  #window = "24h";
  #asked = 0;
  #isLive = false;

  constructor() {
    at("past-more").addEventListener("click", () => {
      this.#isLong = !this.#isLong;
      this.#list();
    });
    for (const window of WINDOWS) {
      const input = make("input", { type: "radio", name: "window", value: window, onchange: () => this.#choose(window) });
      input.checked = window === this.#window;
      at("windows").append(make("label", {}, input, make("span", { text: window })));
    }
  }

  /** One entry of the history, which may take the place of an earlier one. */
  entry(entry) {
    if (entry.what === "epoch") {
      // An outage that led to another epoch is told with that.
      for (const [name, other] of this.#entries) {
        if (other.what === "outage" && other.from >= entry.closed_at && other.from <= entry.opened_at) this.#entries.delete(name);
      }
    }
    this.#entries.set(name(entry), entry);
    this.#list();
    this.#asked = 0;
  }

  now(ms) {
    this.#now = ms;
    if (this.#isLive && ms - this.#asked > ASK) this.#ask();
  }

  connection(isLive) {
    this.#isLive = isLive;
  }

  // --- the list ------------------------------------------------------------------------------------------------------

  #list() {
    show(at("past-none"), ![...this.#entries.values()].some(isEvent));
    const entries = [...this.#entries.values()].filter(isEvent).sort((a, b) => when(b) - when(a));
    const shown = this.#isLong ? entries : entries.slice(0, FEW);
    const longest = Math.max(1, ...shown.filter((entry) => entry.what === "epoch").map(total));
    keyed(at("past"), shown, name, () => make("li"), (row, entry) => {
      const text = JSON.stringify([entry, longest]);
      if (row.dataset.text === text) return;
      row.dataset.text = text;
      row.className = entry.what === "epoch" && !ORDERED.includes(entry.kind) ? "epoch failure" : entry.what;
      row.replaceChildren(make("time", { text: date(when(entry)), datetime: new Date(when(entry)).toISOString() }), told(entry, longest));
    });
    show(at("past-more"), entries.length > FEW);
    say(at("past-more"), this.#isLong ? "Show fewer" : `Show all ${entries.length}`);
  }

  // --- availability --------------------------------------------------------------------------------------------------

  #choose(window) {
    this.#window = window;
    this.#ask();
  }

  async #ask() {
    this.#asked = this.#now;
    const window = this.#window;
    try {
      const answer = await fetch(`availability?window=${encodeURIComponent(window)}`);
      if (answer.ok && window === this.#window) this.#availability(await answer.json());
    } catch {
      // Whether anybody is there is told above.
    }
  }

  #availability(found) {
    const place = at("availability");
    if (!place.firstChild) {
      place.append(make("p", { class: "percent" }), make("div", { class: "meter", "aria-hidden": "true" }, make("i")), make("dl", { class: "gauges" }));
    }
    const [percent, meter, list] = place.children;
    const share = found.availability;
    say(percent, share === null ? "unknown" : `${digits(share)} %`);
    meter.firstChild.style.width = `${100 * (share ?? 0)}%`;
    const none = "no failure";
    facts(list, [
      ["Down", time(found.downtime_ms), `of ${time(found.observed_ms)} that were watched`],
      ["Failures", count(found.failures), "what was ordered is none"],
      ["MTTF", found.mttf_ms === null ? "–" : time(found.mttf_ms), found.mttf_ms === null ? none : "mean time to failure"],
      ["MTTR", found.mttr_ms === null ? "–" : time(found.mttr_ms), found.mttr_ms === null ? none : "mean time to restoration"],
      ["Longest", found.longest ? time(found.longest.to - found.longest.from) : "–", found.longest ? `${date(found.longest.from)}: ${found.longest.reason}` : "nothing"],
    ]);
  }
}

/** As many digits as tell something: 99.9871, not 100.0. */
function digits(share) {
  const percent = 100 * share;
  if (percent === 100) return "100";
  return percent > 99 ? (Math.floor(percent * 10000) / 10000).toFixed(4) : percent.toFixed(2);
}

function name(entry) {
  switch (entry.what) {
    case "epoch": return `epoch ${entry.epoch}`;
    case "outage": return `outage ${entry.from}`;
    case "watch": return `watch ${entry.from}`;
    default: return `${entry.what} ${entry.node} ${entry.began_at}`;
  }
}

/** That somebody watched is none; it is in the availability. */
function isEvent(entry) {
  return entry.what !== "watch";
}

function when(entry) {
  return entry.closed_at ?? entry.from ?? entry.began_at ?? 0;
}

function total(entry) {
  return entry.phases.reduce((sum, [, ms]) => sum + ms, 0);
}

function told(entry, longest) {
  switch (entry.what) {
    case "epoch": return epoch(entry, longest);
    case "outage": return outage(entry);
    case "repair": return repair(entry);
    default: return make("p", { text: entry.what });
  }
}

function title(what, text, note) {
  return make("p", { class: "title" }, make("span", { class: "tag", text: what }), make("strong", { text }), make("span", { class: "note", text: note }));
}

function epoch(entry, longest) {
  const down = entry.opened_at - entry.closed_at;
  const path = entry.from && entry.from !== entry.to ? `${entry.from} → ${entry.to}` : entry.to;
  const place = make("div", {}, title(entry.kind, path, `epoch ${entry.epoch}, timeline ${entry.timeline}`));
  const phases = entry.phases.filter(([, ms]) => ms > 0);
  if (phases.length) {
    const bar = make("div", { class: "phases", role: "img", "aria-label": phases.map(([phase, ms]) => `${phase} ${time(ms)}`).join(", ") });
    const legend = make("ul", { class: "legend" });
    for (const [phase, ms] of phases) {
      const segment = make("i", { class: `phase ${phase}`, title: `${phase}: ${time(ms)} – ${PHASES[phase] ?? ""}` });
      segment.style.width = `${100 * ms / longest}%`;
      bar.append(segment);
      legend.append(make("li", { title: PHASES[phase] ?? null }, make("i", { class: `phase ${phase}` }), `${phase} `, make("b", { text: time(ms) })));
    }
    place.append(bar, legend);
  }
  const lost = entry.known_loss_bytes ? `${bytes(entry.known_loss_bytes)} of the old primary’s log are lost` : "no known loss";
  // With a quorum what was acknowledged is on another disk too, and nothing is lost at a switchover.
  const mayBeLost = entry.durability === "async" && entry.kind !== "switchover" && entry.lost_commits_at_most;
  const commits = mayBeLost ? `, at most ${count(entry.lost_commits_at_most)} acknowledged commits` : "";
  place.append(make("p", { class: "sums" }, make("b", { text: `no writes for ${time(Math.max(0, down))}` }), ` · ${lost}${commits} · ${entry.durability}`));
  place.append(make("p", { class: "cause", text: entry.cause }));
  const rejected = Object.entries(entry.rejected);
  if (rejected.length) {
    place.append(make("ul", { class: "rejected" }, ...rejected.map(([node, why]) => make("li", {}, make("b", { text: node }), ` not chosen: ${why}`))));
  }
  return place;
}

function outage(entry) {
  const length = entry.to === null ? "until now" : `for ${time(entry.to - entry.from)}`;
  return make("div", {}, title("outage", `no writes ${length}`, "by the same primary again"), make("p", { class: "cause", text: entry.reason }));
}

function repair(entry) {
  const took = time(entry.ended_at - entry.began_at);
  const place = make("div", {}, title(entry.failure ? "rejoin failed" : "rejoin", `${entry.node} ${entry.failure ? "is no standby yet" : `follows ${entry.primary}`}`, `${entry.repair}, ${took}`));
  place.append(make("p", { class: "cause", text: [entry.why, entry.failure].filter(Boolean).join("; ") }));
  if (entry.diverged) {
    const { commits, kept } = entry.diverged;
    const how = commits === null ? "commits of its own that could not be counted" : commits === 1 ? "1 commit of its own" : `${count(commits)} commits of its own`;
    place.append(make("p", { class: "cause", text: kept ? `It had ${how}, kept in ${kept}.` : `It had ${how}.` }));
  }
  return place;
}
