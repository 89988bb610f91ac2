// The epoch as a clock, the shards' ranges as bars, and who moves where with the next document.

import { byId, el, keyed, svg, text, title } from "./dom.js";
import { byName, count, duration } from "./format.js";

const PHASES = ["registration", "reveal", "handoff", "settlement", "closed"];
const RADIUS = 44;
const ROUND = 2 * Math.PI * RADIUS;

export function showEpoch(picture) {
  const { clock, ranges, next_ranges: next, moves } = picture;
  showClock(clock, picture.time);
  showChange(clock, picture.time);
  keyed(byId("ranges"), ranges, (r) => r.shard, makeRange, (parts, r) => updateRange(parts, r, false));
  byId("next").hidden = next.length === 0;
  keyed(byId("next-ranges"), next, (r) => r.shard, makeRange, (parts, r) => updateRange(parts, r, true));
  text(byId("moves-title"), moves.length ? `${count(moves.length)} nodes change seats` : "No node changes seats");
  const sorted = [...moves].sort((a, b) => byName(a.name, b.name));
  keyed(byId("moves"), sorted, (m) => `${m.name} ${m.from} ${m.to}`, makeMove, () => {});
}

let hand = null;

// The ring fills as the epoch grows old.
function showClock(clock, now) {
  const figure = byId("clock");
  if (hand === null) {
    const drawing = svg("svg", { viewBox: "0 0 100 100", role: "img" });
    const face = svg("circle", { class: "face", cx: 50, cy: 50, r: RADIUS });
    const ring = svg("circle", { class: "age", cx: 50, cy: 50, r: RADIUS, "stroke-dasharray": `0 ${ROUND}`, transform: "rotate(-90 50 50)" });
    const number = svg("text", { class: "number", x: 50, y: 52 });
    const label = svg("text", { class: "old", x: 50, y: 68 });
    drawing.append(face, ring, number, label);
    figure.append(drawing);
    hand = { drawing, ring, number, label };
  }
  const old = clock?.began ? Math.max(0, now - clock.began) : null;
  const part = old === null ? 0 : Math.min(1, old / clock.length);
  hand.ring.setAttribute("stroke-dasharray", `${part * ROUND} ${ROUND}`);
  text(hand.number, clock?.number ?? "–");
  text(hand.label, old === null ? "" : duration(old));
  const words = clock ? `epoch ${clock.number}${old === null ? "" : `, ${duration(old)} of ${duration(clock.length)} old`}` : "no epoch yet";
  hand.drawing.setAttribute("aria-label", words);
}

function showChange(clock, now) {
  const facts = clock ? changeFacts(clock, now) : [["Phase", "no epoch yet"]];
  keyed(byId("change"), facts.map(([name, value]) => ({ name, value })), (f) => f.name, makeFact, (parts, f) => text(parts.value, f.value));
}

function changeFacts(clock, now) {
  const step = PHASES.indexOf(clock.phase) + 1;
  const facts = [["Phase of the register", `${clock.phase} (${step} of ${PHASES.length})`], ["Attempt", count(clock.attempt)]];
  if (clock.since) facts.push(["Since", duration(now - clock.since)]);
  if (clock.ends) {
    const left = clock.ends - now;
    const first = clock.phase === "registration";
    if (left > 0) facts.push([first ? "Open for at least" : "Over within", duration(left)]);
  }
  if (clock.registrations !== undefined) {
    facts.push(["Registered", count(clock.registrations)]);
    if (clock.phase === "reveal") facts.push(["Told their secrets", `${count(clock.secrets)} of ${count(clock.registrations)}`]);
    if (clock.phase === "handoff") facts.push(["Ready", count(clock.ready)]);
    if (clock.phase === "settlement") facts.push(["Shards settled", count(clock.settled)]);
    if (clock.farewells) facts.push(["Said farewell", count(clock.farewells)]);
    if (clock.called) facts.push(["Called by", "coordinator"]);
  }
  return facts;
}

function makeFact(fact) {
  const value = el("dd");
  return { root: el("div", "", el("dt", "", fact.name), value), value };
}

function makeRange(range) {
  const label = el("span", "", String(range.shard));
  return { root: el("div", `range r${range.shard % 6}`, label), label };
}

function updateRange(parts, range, next) {
  parts.root.style.left = `${range.from * 100}%`;
  parts.root.style.width = `${(range.to - range.from) * 100}%`;
  const from = range.origins.length ? `, comes from shard ${range.origins.join(" and ")}` : "";
  const words = `shard ${range.shard}: ${((range.to - range.from) * 100).toFixed(1)} % of the addresses${from}`;
  title(parts.root, words);
  const split = next && range.origins.length && range.origins.join() !== String(range.shard);
  text(parts.label, split ? `${range.origins.join("+")} → ${range.shard}` : range.shard);
}

function makeMove(move) {
  const seat = (shard) => (shard === null ? "no seat" : `shard ${shard}`);
  return { root: el("li", "", el("b", "", move.name), ` ${seat(move.from)} → ${seat(move.to)}`) };
}
