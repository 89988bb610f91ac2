// Payments at a time to come, once or again and again.

import { assets, wallets } from "../account.js";
import { call, get, make, post } from "../api.js";
import { button, el, put } from "../dom.js";
import { field, form, input, select, wordsOf } from "../form.js";
import { day, money, t, time } from "../language.js";
import { amountFields, badge, confirmed, facts, heading, link, listed, panel, tabs, walletField } from "../parts.js";

const RHYTHMS = ["once", "weekly 1", "weekly 2", "monthly 1", "monthly 3", "monthly 12"];
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export async function scheduled({ watch }) {
  const [held, all] = await Promise.all([wallets(), assets()]);
  const list = el("div");
  const look = async () => put(list, listed((await get("/v1/scheduled-payments")).items, (one) => shown(one, look), "scheduled.none"));
  watch(look);
  await look();
  return [
    heading(t("menu.scheduled")),
    tabs("scheduled"),
    panel(null, el("p", { class: "lead" }, t("scheduled.lead")), planning(held, all, look)),
    panel(t("scheduled.list"), list),
  ];
}

function planning(held, all, look) {
  const to = input("to", { maxlength: 254, spellcheck: "false", autocapitalize: "none" });
  const start = input("starts_at", { type: "datetime-local", value: tomorrow() });
  const rhythm = select("rhythm", RHYTHMS.map((one) => [one, rhythmOf(...one.split(" "))]));
  const fields = [
    field(t("field.to"), to, t("hint.to")),
    amountFields(all),
    walletField(held, t("field.from"), "from_wallet"),
    el("div", { class: "halves" }, field(t("scheduled.start"), start, ZONE), field(t("scheduled.rhythm"), rhythm)),
    ending(rhythm),
    field(t("field.memo"), input("memo", { required: false, maxlength: 140 }), t("hint.memo")),
  ];
  const plan = form(fields, t("scheduled.make"), async (values, key) => {
    const [repeat, interval] = values.rhythm.split(" ");
    const rows = [
      [t("field.to"), values.to],
      [t("field.amount"), money(values.amount, values.asset)],
      [t("scheduled.start"), time(values.starts_at)],
      [t("scheduled.rhythm"), rhythmOf(repeat, interval)],
      [t("scheduled.until"), values.until && day(values.until)],
      [t("scheduled.count"), values.count],
    ];
    if (!(await confirmed(t("scheduled.confirm"), rows, t("scheduled.make")))) return;
    const { rhythm: _, ends: __, count, ...rest } = values;
    const often = repeat === "once" ? {} : { interval: Number(interval), ...(count && { count: Number(count) }) };
    await make("/v1/scheduled-payments", { ...rest, repeat, ...often, time_zone: ZONE }, key);
    for (const name of ["to", "amount", "memo"]) plan.elements[name].value = "";
    await look();
  });
  return plan;
}

// When it ends, for what is not paid once.
function ending(rhythm) {
  const ways = {
    never: [t("scheduled.ends_never"), () => null],
    until: [t("scheduled.ends_until"), () => field(t("scheduled.until"), input("until", { type: "date" }))],
    count: [t("scheduled.ends_count"), () => field(t("scheduled.count"), input("count", { type: "number", min: 1, max: 1000 }))],
  };
  const ends = select("ends", Object.entries(ways).map(([way, [words]]) => [way, words]));
  const place = el("div");
  const choice = el("div", { class: "halves", hidden: true }, field(t("scheduled.ends"), ends), place);
  const choose = () => {
    choice.hidden = rhythm.value === "once";
    place.replaceChildren((!choice.hidden && ways[ends.value][1]()) || "");
  };
  for (const one of [rhythm, ends]) one.addEventListener("change", choose);
  return choice;
}

function shown(one, look) {
  const path = `/v1/scheduled-payments/${one.id}`;
  const then = (act) => async () => {
    await act();
    await look();
  };
  const pause = one.status === "active" && button(t("scheduled.pause"), then(() => post(`${path}/pause`)));
  const resume = one.status === "paused" && button(t("scheduled.resume"), then(() => post(`${path}/resume`)));
  const stop = button(t("scheduled.stop"), async () => {
    const rows = [
      [t("field.to"), one.to],
      [t("field.amount"), money(one.amount, one.asset)],
    ];
    if (await confirmed(t("scheduled.stop"), rows, t("scheduled.stop"))) await then(() => call("DELETE", path))();
  });
  const rows = [
    [t("field.to"), one.to],
    [t("scheduled.rhythm"), [rhythmOf(one.repeat, one.interval), endOf(one)].filter(Boolean).join(", ")],
    [t("scheduled.next"), one.next_run_at && time(one.next_run_at)],
    [t("field.memo"), one.memo],
  ];
  return el(
    "li",
    { class: "card" },
    el("p", {}, el("b", {}, money(one.amount, one.asset)), " ", badge(one.status)),
    facts(rows),
    one.last_run && runs(one, path),
    (pause || resume) && el("p", { class: "links" }, pause, resume, stop),
  );
}

// The latest, and all when they are asked for.
function runs(one, path) {
  const list = el("ul", {}, run(one.last_run));
  const all = el("details", {}, el("summary", {}, t("scheduled.runs")), list);
  all.addEventListener("toggle", async () => all.open && put(list, (await get(`${path}/runs`)).items.map(run)));
  return el("div", { class: "quiet" }, el("p", {}, t("scheduled.last"), " ", ...words(one.last_run)), all);
}

const run = (one) => el("li", {}, ...words(one));

const words = (one) =>
  [
    time(one.due_at),
    " ",
    badge(one.status),
    " ",
    one.code && wordsOf({ code: one.code }),
    " ",
    one.transfer_id && link(`receipt/${one.transfer_id}`, t("action.receipt")),
  ].filter(Boolean);

function rhythmOf(repeat, interval) {
  if (repeat === "once") return t("scheduled.once");
  if (Number(interval) === 1) return t(repeat === "weekly" ? "scheduled.week" : "scheduled.month");
  return t(repeat === "weekly" ? "scheduled.weeks" : "scheduled.months", { n: interval });
}

function endOf(one) {
  if (one.count) return t("scheduled.times", { n: one.count });
  return one.until && t("scheduled.to_day", { day: day(one.until) });
}

function tomorrow() {
  const start = new Date(Date.now() + 24 * 3600 * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${start.getFullYear()}-${two(start.getMonth() + 1)}-${two(start.getDate())}T09:00`;
}
