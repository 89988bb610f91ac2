// The network as a picture: gateways and coordinator above the broker, committees of nodes below it.

import { byId, el, keyed, showState, text, title } from "./dom.js";
import { age, byName, count, percent, rate, time } from "./format.js";

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
      ? `epoch ${service.epoch} · ${service.phase || "–"} · ${count(service.registered)} registered, ${count(service.ready)} ready`
      : `${count(service.transfers)} transfers · ${count(service.pending)} in its outbox`;
  text(parts.detail, words);
  text(parts.doing, service.state === "down" ? `silent, last heard ${age(service.age)}` : service.doing);
  title(parts.doing, service.doing);
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
  text(parts.phase, node.state === "down" ? `down, ${age(node.age)}` : `e${node.epoch} ${node.phase}`);
  parts.fill.style.width = `${Math.min(100, node.cpu)}%`;
  title(parts.root, `${node.name}: ${node.doing}\nview ${node.view} · CPU ${percent(node.cpu)} · ${count(node.peers)} peers · state ${node.state_root}`);
}
