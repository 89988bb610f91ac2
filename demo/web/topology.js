// The network as a picture: gateways and coordinator above the broker, committees of nodes below it.

import { byId, el, keyed, showState, text, title } from "./dom.js";
import { NONE, age, byName, count, milliseconds, percent, rate, time } from "./format.js";

export function showTopology(picture) {
  const { sources, committees, broker } = picture;
  const services = sources.filter((s) => s.role === "gateway" || s.role === "coordinator");
  keyed(byId("services"), services, (s) => `${s.role} ${s.name}`, makeService, updateService);
  showBroker(byId("broker"), broker);

  const nodes = new Map(sources.filter((s) => s.role === "node").map((s) => [s.name, s]));
  keyed(byId("committees"), committees, (c) => c.shard, makeCommittee, (parts, c) => updateCommittee(parts, c, nodes));
  const seated = new Set(committees.flatMap((c) => c.members));
  const others = [...nodes.values()].filter((n) => !seated.has(n.name)).sort((a, b) => byName(a.name, b.name));
  const name = committees.length ? "Nodes without a seat" : "Nodes, before committees are formed";
  keyed(byId("unseated"), others.length ? [{ name, others }] : [], () => "", makeGroup, updateGroup);
}

function showBroker(element, broker) {
  const words = broker.connected ? `${rate(broker.messages)} messages/s` : `not heard since ${time(broker.since)}`;
  element.classList.toggle("lost", !broker.connected);
  text(element, `${broker.connected ? "●" : "✕"} broker · ${words}`);
}

function makeService(service) {
  const state = el("span");
  const detail = el("p", "detail");
  const doing = el("p", "doing");
  const heading = el("h3", "", state, " ", service.role === service.name ? "" : `${service.role} `, el("b", "", service.name));
  return { root: el("article", "service", heading, detail, doing), state, detail, doing };
}

function updateService(parts, service) {
  parts.root.dataset.state = service.state;
  showState(parts.state, service.state);
  const words =
    service.role === "coordinator"
      ? `epoch ${service.epoch} · ${service.phase} · ${progress(service)}`
      : `${count(service.transfers)} transfers · ${count(service.pending)} under way`;
  text(parts.detail, words);
  text(parts.doing, service.state === "down" ? `silent, last heard ${age(service.age)}` : service.doing);
  title(parts.doing, service.doing);
}

// How far the coordinator is in its phase.
function progress({ phase, wanted, registered, acknowledged, ready }) {
  const all = count(registered);
  if (phase === "registration") return `${all} of ${count(wanted)} registered`;
  if (phase === "assignment") return `accepted by ${count(acknowledged)} of ${all}`;
  if (phase === "handoff") return `${count(ready)} of ${all} ready`;
  return `${all} registered`;
}

function makeCommittee(committee) {
  const quorum = el("span", "quorum");
  const detail = el("p", "detail");
  const nodes = el("ol", "nodes");
  const heading = el("h3", "", `Shard ${committee.shard} `, quorum);
  return { root: el("article", "committee", el("header", "", heading, detail), nodes), quorum, detail, nodes };
}

function updateCommittee(parts, committee, nodes) {
  const size = committee.members.length;
  const members = committee.members.map((name) => nodes.get(name) ?? { name, state: "unseen" });
  const unknown = members.some((n) => n.state === "unknown");
  const works = unknown || committee.up >= size - committee.faults_tolerated;
  text(parts.quorum, unknown ? `? of ${size} up` : works ? `${committee.up} of ${size} up, tolerates ${committee.faults_tolerated}` : `✕ ${committee.up} of ${size} up: no quorum`);
  parts.quorum.classList.toggle("bad", !works);
  const late = committee.missed ? ` · ${count(committee.missed)} blocks not seen` : "";
  const leader = committee.members[committee.leader];
  const led = leader ? `★ leader ${leader} · ` : "";
  text(parts.detail, `${led}height ${count(committee.height)} · ${rate(committee.rate)} tx/s · ${count(committee.pending)} pending${late}`);
  keyed(parts.nodes, members, (n) => n.name, makeNode, (p, n) => updateNode(p, n, n.name === leader));
}

function makeGroup(group) {
  const nodes = el("ol", "nodes");
  const heading = el("h3", "", group.name);
  return { root: el("article", "committee loose", el("header", "", heading), nodes), heading, nodes };
}

function updateGroup(parts, group) {
  text(parts.heading, group.name);
  keyed(parts.nodes, group.others, (n) => n.name, makeNode, (p, n) => updateNode(p, n, false));
}

function makeNode(node) {
  const state = el("span");
  const badge = el("span", "leader");
  title(badge, "leader");
  const height = el("p", "height");
  const phase = el("p", "phase");
  const fill = el("span", "fill");
  const root = el("li", "node", el("h4", "", state, " ", node.name), badge, height, phase, el("span", "meter", fill));
  return { root, state, badge, height, phase, fill };
}

function updateNode(parts, node, leads) {
  parts.root.dataset.state = node.state;
  parts.root.classList.toggle("leads", leads);
  showState(parts.state, node.state);
  text(parts.badge, leads ? "★" : "");
  if (node.state === "unseen") {
    text(parts.height, "–");
    text(parts.phase, "not heard yet");
    return;
  }
  text(parts.height, count(node.height));
  text(parts.phase, node.state === "down" ? `down, ${age(node.age)}` : `e${node.epoch} ${node.catching_up ? "catching up" : node.phase}`);
  parts.fill.style.width = `${Math.min(100, node.cpu)}%`;
  title(parts.root, details(node));
}

// All a node says of itself, line by line.
function details(node) {
  const process = [`CPU ${percent(node.cpu)}`, `${count(node.peers)} peers`, `${rate(node.hashes_rate)} hashes/s`, `${count(node.broker_dropped)} broker messages dropped`];
  const lines = [`${node.name}: ${node.doing}`, process.join(" · ")];
  if (node.view !== undefined) {
    const own = node.latency_us === undefined ? NONE : milliseconds(node.latency_us / 1000);
    lines.push(
      `view ${count(node.view)}, ${count(node.view_timeouts)} timed out · state ${node.state_root} · own blocks final in ${own}`,
      `mempool ${count(node.mempool)}, ${count(node.mempool_dropped)} dropped · ${count(node.pending_commits)} pending across shards`,
      `committed ${count(node.committed)}, rejected ${count(node.rejected)}, expired ${count(node.expired)}`,
      `bundles: ${count(node.bundles_in)} in, ${count(node.bundles_out)} out`,
    );
  }
  return lines.join("\n");
}
