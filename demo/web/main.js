// Puts the stream's pictures on the page, once a second.

import { LineChart } from "./chart.js";
import { byId, text, title } from "./dom.js";
import { showEpoch } from "./epoch.js";
import { count, milliseconds, rate, time } from "./format.js";
import { showLoad } from "./load.js";
import { follow } from "./stream.js";
import { showActivity, showBlocks, showFeed, showServers, showSupply } from "./tables.js";
import { showTopology } from "./topology.js";

const HISTORY = 300; // rows, one a second

const throughput = new LineChart(
  byId("throughput"),
  [
    { name: "intra-shard", column: "intra", style: "a" },
    { name: "cross-shard", column: "cross", style: "b dashed" },
    { name: "refused", column: "refused", style: "c dotted" },
  ],
  rate,
);
const latency = new LineChart(
  byId("latency"),
  [
    { name: "intra p50", column: "p50", style: "a" },
    { name: "intra p99", column: "p99", style: "a dotted" },
    { name: "cross p50", column: "cross_p50", style: "b dashed" },
    { name: "cross p99", column: "cross_p99", style: "b dotted" },
    { name: "finalization", column: "finalization", style: "d" },
  ],
  milliseconds,
);

let rows = [];
let load = new Map();
let shownTime = null;

function remember(kind, picture) {
  if (kind === "snapshot") {
    rows = picture.history;
    load = new Map(Object.entries(picture.load_history));
    return;
  }
  if (picture.row) rows = [...rows, picture.row].slice(-HISTORY);
  for (const committee of picture.committees) {
    const key = String(committee.shard);
    load.set(key, [...(load.get(key) ?? []), [committee.cpu, committee.memory]].slice(-HISTORY));
  }
}

function show(kind, picture) {
  remember(kind, picture);
  shownTime = picture.time;
  const heard = picture.committees.length > 0 || picture.epoch !== null || picture.sources.some((s) => s.role !== "dashboard");
  byId("empty").hidden = heard;
  byId("main").hidden = !heard;
  showHeader(picture);
  showBroker(picture.broker);
  if (!heard) return;
  showTopology(picture);
  showEpoch(picture);
  throughput.show(rows, picture.columns);
  latency.show(rows, picture.columns);
  showSupply(picture);
  showActivity(picture, rows, picture.columns);
  showLoad(picture, load);
  showBlocks(picture);
  showServers(picture);
  showFeed(picture);
}

function showHeader(picture) {
  const { network, finalized, committees, row } = picture;
  const nodes = picture.sources.filter((s) => s.role === "node");
  const up = nodes.filter((s) => s.state === "up");
  const seats = new Set(committees.length ? committees.flatMap((c) => c.members) : nodes.map((s) => s.name));
  text(byId("network-name"), network.name);
  title(byId("network-name"), `network ${network.id}`);
  text(byId("epoch"), picture.epoch ?? "–");
  text(byId("phase"), picture.phase ?? "–");
  const unknown = nodes.some((s) => s.state === "unknown" && seats.has(s.name));
  text(byId("nodes-up"), `${unknown ? "?" : up.filter((s) => seats.has(s.name)).length} of ${seats.size}`);
  const column = (name) => row?.[picture.columns.indexOf(name)] ?? 0;
  text(byId("rate"), picture.broker.connected ? rate(column("intra") + column("cross")) : "–");
  text(byId("final"), `${count(finalized.intra)} + ${count(finalized.cross)}`);
  text(byId("pending"), count(committees.reduce((sum, c) => sum + c.pending, 0)));
  const fullest = (members) => Math.max(0, ...up.filter((s) => members.includes(s.name)).map((s) => s.mempool ?? 0));
  text(byId("mempool"), count(committees.reduce((sum, c) => sum + fullest(c.members), 0)));
  text(byId("ignored"), picture.broker.ignored ? `${count(picture.broker.ignored)} malformed or surplus messages were ignored.` : "");
  const link = byId("gateway-link");
  link.hidden = !/^https?:\/\//.test(network.gateway);
  if (!link.hidden && link.href !== network.gateway) link.href = network.gateway;
  document.title = `${network.name} – shardpay`;
}

let connection = "connecting";
let brokerWords = "";

function showBroker(broker) {
  brokerWords = broker.connected ? "" : `The dashboard does not hear the broker since ${time(broker.since)}: reconnecting… What is up is not known.`;
}

function showConnection(state) {
  connection = state;
  const lost = connection === "lost";
  const since = shownTime === null ? "" : ` This is how it was at ${time(shownTime)}.`;
  const words = lost ? `Connection to the dashboard lost: reconnecting…${since}` : brokerWords;
  text(byId("banner"), words);
  byId("banner").hidden = words === "";
  document.body.classList.toggle("stale", words !== "");
  text(byId("live"), lost ? "✕ reconnecting…" : "● live");
  byId("live").className = lost ? "lost" : "live";
}

follow("/api/stream", show, showConnection);
