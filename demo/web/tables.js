// The tables: money, gateway activity, latest blocks, servers; and the feed.

import { sparkline } from "./chart.js";
import { byId, el, keyed, row, stateWord, text, title } from "./dom.js";
import { NONE, age, amount, byName, bytes, count, percent, rate, time } from "./format.js";

const fill = (parts, values) => values.forEach((value, i) => text(parts.cells[i], value));

const VERDICTS = { yes: "✓ yes", no: "✕ NO", unknown: "… checking" };

export function showSupply(picture) {
  const columns = ["name", "n", "n", "n", "n", "verdict"];
  keyed(byId("supply"), picture.supply, (s) => s.asset, () => row(columns), (parts, s) => {
    const amounts = [s.available, s.held, s.in_flight, s.issued].map(amount);
    fill(parts, [s.asset, ...amounts, VERDICTS[s.conserved]]);
    parts.cells.at(-1).className = `verdict ${s.conserved}`;
  });
  const both = picture.contradictions;
  text(byId("contradictions"), both ? `Transactions that a home shard decided both ways: ${count(both)}` : "");
}

const ACTIVITIES = {
  logins: "Logins",
  sign_ups: "Sign-ups",
  purchases: "Purchases",
  transfers: "Transfers",
  balance_reads: "Balance reads",
};

export function showActivity(picture, rows, columns) {
  const make = () => {
    const parts = row(["name", "n", "n", "trend"]);
    const spark = sparkline();
    parts.cells[3].append(spark.root);
    return { ...parts, spark };
  };
  keyed(byId("activity"), Object.entries(picture.activity), ([name]) => name, make, (parts, [name, [total, perSecond]]) => {
    fill(parts, [ACTIVITIES[name], count(total), rate(perSecond)]);
    const column = columns.indexOf(name);
    parts.spark.show(rows.map((r) => r[column] ?? 0), `${ACTIVITIES[name]} per second over the last minutes, now ${rate(perSecond)}`);
  });
}

export function showBlocks(picture) {
  const columns = ["n", "n", "n", "n", "n", "", "", "hash"];
  const blocks = [...picture.blocks].reverse();
  keyed(byId("blocks"), blocks, (b) => b.hash, () => row(columns), (parts, b) => {
    fill(parts, [b.shard, count(b.height), count(b.view), count(b.transactions), count(b.committed), b.proposer, time(b.time), b.hash.slice(0, 12)]);
    parts.root.classList.toggle("idle", b.transactions === 0 && b.committed === 0);
    title(parts.root, `${b.prepared} prepared, ${b.committed} committed, ${b.refused} refused, ${b.bundles} bundles from other shards`);
  });
}

const ROLES = ["coordinator", "gateway", "dashboard", "node"];

export function showServers(picture) {
  const columns = ["", "name", "", "doing", "n", "n", "n", "n", "n", "n", "n", "n"];
  const order = (a, b) => ROLES.indexOf(a.role) - ROLES.indexOf(b.role) || byName(a.name, b.name);
  const servers = [...picture.sources].sort(order);
  keyed(byId("servers"), servers, (s) => `${s.role} ${s.name}`, () => row(columns), (parts, s) => {
    const runs = s.state === "up";
    const load = runs ? [percent(s.cpu), bytes(s.memory)] : [NONE, NONE];
    const talks = runs && s.role === "node";
    const traffic = talks ? [`${bytes(s.bytes_in_rate)}/s`, `${bytes(s.bytes_out_rate)}/s`, count(s.peers)] : [NONE, NONE, NONE];
    fill(parts, [s.role, s.name, stateWord(s.state), runs ? s.doing : `last heard: ${s.doing}`, ...load, ...traffic, count(s.restarts), s.pid, age(s.age)]);
    parts.cells[2].className = `state-word ${s.state}`;
    parts.root.dataset.state = s.state;
    title(parts.cells[3], s.doing);
  });
}

export function showFeed(picture) {
  const make = () => {
    const [when, source, words] = [el("time"), el("b"), el("span")];
    return { root: el("li", "", when, source, words), when, source, words };
  };
  const newestFirst = [...picture.feed].reverse();
  keyed(byId("feed"), newestFirst, (line) => line.number, make, (parts, line) => {
    text(parts.when, time(line.time));
    text(parts.source, line.source);
    text(parts.words, line.text);
  });
}
