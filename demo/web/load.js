// CPU and memory of every process, by committee.

import { sparkline } from "./chart.js";
import { byId, el, keyed, row, text } from "./dom.js";
import { bytes, byName, percent } from "./format.js";

export function showLoad(picture, history) {
  const processes = new Map(picture.sources.map((s) => [`${s.role} ${s.name}`, s]));
  const groups = picture.committees.map((c) => ({
    name: `Shard ${c.shard}`,
    members: c.members.map((name) => processes.get(`node ${name}`)).filter(Boolean),
    history: history.get(String(c.shard)) ?? [],
  }));
  const seated = new Set(picture.committees.flatMap((c) => c.members));
  const others = picture.sources.filter((s) => s.role !== "node" || !seated.has(s.name));
  groups.push({ name: "Other processes", members: others.sort((a, b) => byName(a.name, b.name)), history: null });
  const most = Math.max(1, ...picture.sources.map((s) => s.memory));
  keyed(byId("load"), groups, (g) => g.name, makeGroup, (parts, group) => updateGroup(parts, group, most));
}

function makeGroup(group) {
  const sum = el("span", "n");
  const cpu = sparkline();
  const memory = sparkline();
  const heading = el("h3", "", el("span", "", group.name), sum);
  const charts = el("div", "sparks", el("span", "", "CPU ", cpu.root), el("span", "", "memory ", memory.root));
  const body = el("tbody");
  const head = el("thead", "visually-hidden", el("tr", "", ...["Process", "CPU", "Memory"].map((name) => el("th", "", name))));
  const parts = [heading, ...(group.history ? [charts] : []), el("table", "loads", head, body)];
  return { root: el("section", "load-group", ...parts), sum, cpu, memory, body };
}

function updateGroup(parts, group, most) {
  const running = group.members.filter((s) => s.state === "up");
  const total = (key) => running.reduce((sum, s) => sum + s[key], 0);
  text(parts.sum, `${percent(total("cpu"))} · ${bytes(total("memory"))}`);
  if (group.history) {
    parts.cpu.show(group.history.map(([cpu]) => cpu), `CPU over the last minutes, now ${percent(total("cpu"))}`);
    parts.memory.show(group.history.map(([, memory]) => memory), `memory over the last minutes, now ${bytes(total("memory"))}`);
  }
  keyed(parts.body, group.members, (s) => `${s.role} ${s.name}`, makeProcess, (p, s) => updateProcess(p, s, most));
}

function makeProcess() {
  const { root, cells } = row(["name", "bar", "bar"]);
  const [name, ...bars] = cells;
  const [cpu, memory] = bars.map((cell) => {
    const fill = el("span", "fill");
    const label = el("span", "label");
    cell.append(el("span", "meter", fill), label);
    return { fill, label };
  });
  memory.fill.classList.add("memory");
  return { root, name, cpu, memory };
}

function updateProcess(parts, process, most) {
  const running = process.state === "up";
  text(parts.name, process.name);
  parts.root.dataset.state = process.state;
  text(parts.cpu.label, running ? percent(process.cpu) : process.state);
  parts.cpu.fill.style.width = `${running ? Math.min(100, process.cpu) : 0}%`;
  text(parts.memory.label, running ? bytes(process.memory) : "");
  parts.memory.fill.style.width = `${running ? (100 * process.memory) / most : 0}%`;
}
