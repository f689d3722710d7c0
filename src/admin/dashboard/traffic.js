// What is moving: figures, two strip charts, where statements go, and the pools.

import { bytes, count, draw, facts, keyed, make, rate, say, show, time } from "./words.js";

const at = (id) => document.getElementById(id);

/** Seconds that a strip shows. */
const WIDTH = 120;
/** Routes and pools that are shown; the rest is counted. */
const ROUTES = 6;
const POOLS = 10;
/** How much of a bar is of the last second: it should move, not tremble. */
const FRESH = 0.4;

export class Traffic {
  #samples = [];
  #marks = [];
  #primary = null;
  #rates = new Map();
  /** It is measured where something goes by it. */
  #hasLatency = false;

  cluster(cluster) {
    if (cluster.primary === null) return;
    // A line in the chart where another one took over, as seen from here.
    if (this.#primary !== null && cluster.primary !== this.#primary && this.#samples.length) {
      this.#marks.push({ at: this.#samples.at(-1).at, text: cluster.primary });
    }
    this.#primary = cluster.primary;
  }

  figures(figures) {
    const { clients, held, rates, query_ms } = figures;
    const latency = query_ms.p50;
    this.#samples.push({ at: figures.at, primary: rates?.primary ?? null, replica: rates?.replica ?? null, latency });
    this.#hasLatency ||= latency !== null;
    this.#samples = this.#samples.slice(-WIDTH - 1);
    this.#marks = this.#marks.filter((mark) => mark.at >= this.#samples[0].at);

    const doubts = Object.fromEntries(figures.in_doubt.map((doubt) => [doubt.outcome, doubt.total]));
    const doubtful = figures.in_doubt.reduce((sum, doubt) => sum + doubt.total, 0);
    facts(at("gauges"), [
      ["Transactions", rates ? `${rate(rates.primary + rates.replica)}/s` : "–", rates ? `${rate(rates.primary)} primary, ${rate(rates.replica)} replicas` : ""],
      ["Clients", count(clients.connected), `${count(clients.active)} active`],
      ["Waiting", count(clients.waiting), "for a server connection", clients.waiting ? "warn" : ""],
      ["Held", count(held.statements), held.statements ? `for a primary, ${bytes(held.bytes)}` : "for a primary", held.statements ? "warn" : ""],
      latency === null && !this.#hasLatency ? null : ["Latency", latency === null ? "–" : time(latency), query_ms.p99 === null ? "median" : `median; 99 % below ${time(query_ms.p99)}`],
      ["Run elsewhere", count(figures.retried), "reads a replica could not answer"],
      ["In doubt", count(doubtful), doubtful ? Object.entries(doubts).filter(([, n]) => n).map(([word, n]) => `${count(n)} ${word}`).join(", ") : "commits without an answer"],
    ].filter(Boolean));
    this.#strips();
    this.#routes(figures.routes);
    this.#pools(figures);
  }

  connection(isLive) {
    if (!isLive) return;
    // What happened meanwhile nobody knows: a gap, not a line.
    if (this.#samples.length) this.#samples.push({ at: this.#samples.at(-1).at + 1, primary: null, replica: null, latency: null });
  }

  // --- strips --------------------------------------------------------------------------------------------------------

  #strips() {
    const last = this.#samples.at(-1);
    const stacked = [
      { kind: "primary", value: (sample) => sample.primary },
      { kind: "replica", value: (sample) => sample.primary === null ? null : sample.primary + sample.replica },
    ];
    strip(at("throughput"), this.#samples, this.#marks, stacked, (top) => `${rate(top)}/s`,
      last.primary === null ? "no rates yet" : `${rate(last.primary)} transactions per second on the primary, ${rate(last.replica)} on replicas`);
    show(at("latency-figure"), this.#hasLatency);
    if (this.#hasLatency) strip(at("latency"), this.#samples, [], [{ kind: "latency", value: (sample) => sample.latency }], time,
      last.latency === null ? "no statements" : `half of the statements take less than ${time(last.latency)}`);
  }

  // --- routes --------------------------------------------------------------------------------------------------------

  #routes(routes) {
    for (const route of routes) {
      const name = key(route);
      const known = this.#rates.get(name) ?? route.per_second ?? 0;
      this.#rates.set(name, known + FRESH * ((route.per_second ?? 0) - known));
    }
    const now = (route) => this.#rates.get(key(route));
    const shown = [...routes].sort((a, b) => b.total - a.total).slice(0, ROUTES);
    const isMoving = shown.some((route) => now(route) >= 0.05);
    const size = (route) => isMoving ? now(route) : route.total;
    const most = Math.max(...shown.map(size), 0);
    const create = () => make("li", {},
      make("span", { class: "what" }), make("span", { class: "where" }), make("span", { class: "often" }),
      make("div", { class: "bar", "aria-hidden": "true" }, make("i")), make("span", { class: "why" }), make("span", { class: "total" }));
    keyed(at("routes"), shown, key, create, (row, route) => {
      const [what, where, often, bar, why, total] = row.children;
      say(what, route.class);
      say(where, `→ ${route.target}`);
      say(often, `${rate(now(route))}/s`);
      say(why, route.reason === route.class ? "" : route.reason);
      say(total, `${count(route.total)} in all`);
      row.className = route.target;
      bar.firstChild.style.width = `${most ? Math.max(0.5, 100 * size(route) / most) : 0}%`;
    });
    const left = routes.length - shown.length;
    say(at("routes-more"), routes.length === 0 ? "Nothing has been asked yet." : left > 0 ? `${left} rarer ones are in /metrics.` : "");
  }

  // --- pools ---------------------------------------------------------------------------------------------------------

  #pools({ pools, pools_left_out }) {
    const cell = (kind) => make("td", { class: kind });
    const busiest = [...pools].sort((a, b) => b.waiting - a.waiting || b.active - a.active || b.idle - a.idle).slice(0, POOLS);
    const shown = pools.filter((pool) => busiest.includes(pool));
    keyed(at("pools"), shown, (pool) => JSON.stringify([pool.database, pool.user, pool.node]),
      () => make("tr", {}, cell(), cell(), cell(), cell("number"), cell("number"), cell("number")),
      (row, pool) => {
        const texts = [pool.database, pool.user, pool.node, count(pool.active), count(pool.idle), count(pool.waiting)];
        texts.forEach((text, place) => say(row.children[place], text));
        row.classList.toggle("warn", pool.waiting > 0);
      });
    const left = pools.length - shown.length + pools_left_out;
    say(at("pools-more"), pools.length === 0 ? "No server connection is open yet." : left ? `${left} quieter ones are not shown.` : "");
  }
}

function key(route) {
  return `${route.class}|${route.target}|${route.reason}`;
}

/** A strip of the last two minutes; the newest is at its right end. Each series lies above the one before. */
function strip(svg, samples, marks, series, label, said) {
  const [width, height] = [svg.clientWidth || 600, svg.clientHeight || 120];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", said);
  const top = nice(Math.max(0, ...samples.flatMap((sample) => series.map(({ value }) => value(sample) ?? 0))));
  const now = samples.at(-1).at;
  const x = (ms) => width - (now - ms) / 1000 / WIDTH * width;
  const y = (value) => height - 1 - value / top * (height - 22);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const line = Math.round(y(top * share)) + 0.5;
    parts.push(draw("path", { class: "grid", d: `M0 ${line}H${width}` }));
    if (share) parts.push(draw("text", { class: "scale", x: 4, y: line - 4, text: label(top * share) }));
  }
  for (const { kind, value } of [...series].reverse()) {
    for (const run of runs(samples, value)) {
      const line = run.map(([ms, value]) => `${x(ms).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
      parts.push(draw("path", { class: `area ${kind}`, d: `M${line}L${x(run.at(-1)[0]).toFixed(1)} ${height}L${x(run[0][0]).toFixed(1)} ${height}Z` }));
      parts.push(draw("path", { class: `line ${kind}`, d: `M${line}` }));
    }
  }
  for (const mark of marks) {
    const place = x(mark.at).toFixed(1);
    parts.push(draw("path", { class: "mark", d: `M${place} 0V${height}` }));
    parts.push(draw("text", { class: "mark", x: Number(place) - 5, y: 12, "text-anchor": "end", text: `→ ${mark.text}` }));
  }
  svg.replaceChildren(...parts);
}

/** What is known without a gap, as [time, value]. */
function runs(samples, value) {
  const found = [[]];
  for (const sample of samples) {
    const known = value(sample);
    if (known === null) found.push([]);
    else found.at(-1).push([sample.at, known]);
  }
  return found.filter((run) => run.length > 1);
}

/** The next round number at or above. */
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value) * power;
}
