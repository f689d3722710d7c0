// Puts the page together: what /events tells goes to the parts that show it.

import { Explain } from "./explain.js";
import { Feed } from "./feed.js";
import { Orders } from "./orders.js";
import { Past } from "./past.js";
import { Topology } from "./topology.js";
import { Traffic } from "./traffic.js";
import { moment, say, show } from "./words.js";

const at = (id) => document.getElementById(id);

const orders = new Orders();
const topology = new Topology(orders);
const traffic = new Traffic();
const past = new Past();
new Explain(at("explain"), at("explanation"));

const feed = new Feed("events");
feed.addEventListener("cluster", ({ detail }) => {
  say(at("cluster-name"), detail.name);
  document.title = `${detail.primary ?? "no primary"} · ${detail.name} · pgbaton`;
  topology.cluster(detail);
  traffic.cluster(detail);
  orders.cluster(detail);
});
feed.addEventListener("figures", ({ detail }) => {
  topology.figures(detail);
  traffic.figures(detail);
  past.now(detail.at);
});
feed.addEventListener("history", ({ detail }) => past.entry(detail));
feed.addEventListener("connection", ({ detail }) => {
  const isLive = detail.state === "live";
  const said = isLive ? "live" : detail.seen ? `not connected, last seen ${moment(detail.seen)}` : "not connected";
  say(at("connection").querySelector(".said"), said);
  at("connection").classList.toggle("lost", !isLive);
  at("connection").classList.toggle("live", isLive);
  document.body.classList.toggle("stale", !isLive);
  for (const part of [traffic, past]) part.connection(isLive);
});

at("switchover").addEventListener("click", () => orders.switchover());
at("pause").addEventListener("click", () => orders.pause());
at("forget").addEventListener("click", () => orders.forget());
show(at("forget"), orders.hasToken());
