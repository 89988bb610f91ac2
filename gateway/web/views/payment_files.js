// Many payments from one file: checked as a whole, looked at, then paid line by line.

import { nameOf, short, wallets } from "../account.js";
import { download, get, post, save, upload } from "../api.js";
import { button, el, put } from "../dom.js";
import { field, form, input, select, wordsOf } from "../form.js";
import { money, t, time } from "../language.js";
import { badge, confirmed, empty, facts, heading, link, listed, panel, tabs, walletField } from "../parts.js";

const EXAMPLE = "to,asset,amount,memo,reference\r\nbob@example.org,USD,1200.00,November,Bob 4711\r\nspay1...,USD,80.50,,Rent\r\n";
const STATES = ["waiting", "processing", "paid", "failed", "canceled"];

export async function paymentFiles(context) {
  return context.id ? oneFile(context) : allFiles(context);
}

async function allFiles({ watch, go }) {
  const held = await wallets();
  const [list, faults] = [el("div"), el("div", { role: "alert" })];
  const look = async () => put(list, listed((await get("/v1/payment-files")).items, line, "files.none"));
  const file = input("file", { type: "file", accept: ".csv,text/csv" });
  file.addEventListener("change", () => put(faults));
  const check = form([field(t("files.file"), file), walletField(held, t("field.from"))], t("files.check"), async (values, key) => {
    put(faults);
    const { name } = file.files[0];
    const query = new URLSearchParams({ wallet_id: values.wallet_id, name: name.slice(0, 100) });
    try {
      go(`files/${(await upload(`/v1/payment-files?${query}`, file.files[0], key)).id}`);
    } catch (problem) {
      if (problem.code === "invalid_payment_file") put(faults, faulty(problem.errors));
      throw problem;
    }
  });
  watch(look);
  await look();
  const howItLooks = el(
    "details",
    {},
    el("summary", {}, t("files.form")),
    el("p", {}, t("files.form_lead")),
    el("pre", { tabindex: "0" }, EXAMPLE),
    button(t("files.example"), () => save(new Blob([EXAMPLE], { type: "text/csv" }), "payments.csv")),
  );
  return [
    heading(t("menu.files")),
    tabs("files"),
    panel(null, el("p", { class: "lead" }, t("files.lead")), check, faults, howItLooks),
    panel(t("files.list"), list),
  ];
}

const faulty = (errors) =>
  el(
    "ul",
    { class: "faults" },
    errors.map((one) => el("li", {}, el("b", {}, `${t("files.line", { line: one.line })}${columnOf(one)}: `), wordsOf(one))),
  );

function columnOf(error) {
  const [, , , column] = error.pointer.split("/");
  return column ? `, ${column}` : "";
}

const line = (one) =>
  el(
    "li",
    { class: "card" },
    el("p", {}, link(`files/${one.id}`, one.name || time(one.created_at)), ` · ${sumsOf(one)} · ${time(one.created_at)} `, badge(one.status)),
  );

const sumsOf = (one) =>
  Object.entries(one.totals)
    .map(([asset, { amount }]) => money(amount, asset))
    .join(", ");

async function oneFile({ id, watch }) {
  const path = `/v1/payment-files/${encodeURIComponent(id)}`;
  const held = await wallets();
  const [state, lines] = [el("div"), el("div")];
  const status = select("status", [["", t("history.any")], ...STATES.map((one) => [one, t(`status.${one}`)])]);
  let pages = 1;
  const look = async () => {
    const one = await get(path);
    put(state, shown(one, held, path, look));
    await list();
  };
  const list = async () => {
    const items = [];
    let cursor = null;
    for (let page = 0; page < pages && (page === 0 || cursor !== null); page += 1) {
      const answer = await get(`${path}/lines`, { status: status.value, limit: 50, cursor });
      items.push(...answer.items);
      cursor = answer.next_cursor;
    }
    const more = () => {
      pages += 1;
      return list();
    };
    put(
      lines,
      items.length ? el("ol", { class: "movements" }, items.map(payment)) : empty(t("files.no_lines")),
      cursor !== null && button(t("history.more"), more),
    );
  };
  status.addEventListener("change", () => {
    pages = 1;
    return list();
  });
  watch(look);
  await look();
  return [heading(t("menu.files")), tabs("files"), state, panel(t("files.lines"), field(t("history.status"), status), lines)];
}

function shown(one, held, path, look) {
  const { total, paid, failed, canceled } = one.lines;
  const wallet = held.find(({ id }) => id === one.wallet_id);
  const rows = [
    [t("field.from"), wallet && nameOf(wallet)],
    [t("files.sum"), sumsOf(one)],
    [t("receipt.fee"), feesOf(one)],
    [t("files.count"), String(total)],
    [t("files.made"), time(one.created_at)],
    [t("receipt.final"), one.finished_at && time(one.finished_at)],
  ];
  const begun = one.confirmed_at !== null;
  const bar = begun && el("progress", { max: total, value: paid + failed + canceled, "aria-label": t("files.progress") });
  const far = begun && el("p", {}, t("files.so_far", { paid, failed, total }));
  const why = Object.entries(one.failures).map(([code, count]) => el("li", {}, `${count} × ${wordsOf({ code })}`));
  const result = begun && button(t("files.result"), () => download(`${path}/result.csv`, `result-${(one.name || one.id).replace(/\.csv$/i, "")}.csv`));
  return panel(
    one.name,
    el("p", { class: "big" }, badge(one.status)),
    facts(rows),
    bar,
    far,
    why.length > 0 && el("ul", { class: "faults" }, why),
    el("div", { class: "buttons" }, deeds(one, rows, path, look), result),
  );
}

function feesOf(one) {
  const fees = Object.entries(one.totals).filter(([, { fees }]) => /[1-9]/.test(fees));
  return fees.map(([asset, total]) => money(total.fees, asset)).join(", ");
}

function deeds(one, rows, path, look) {
  const pay = async () => {
    if (!(await confirmed(t("files.confirm"), rows.slice(0, 4), t("files.pay")))) return;
    await post(`${path}/confirm`);
    await look();
  };
  const cancel = async () => {
    await post(`${path}/cancel`);
    await look();
  };
  if (one.status === "checked") return [button(t("files.pay"), pay, ""), button(t("files.drop"), cancel)];
  return one.status === "processing" ? [button(t("files.stop"), cancel)] : [];
}

function payment(one) {
  const why = one.code && wordsOf({ code: one.code });
  const about = [t("files.line", { line: one.line }), one.reference, one.memo, why].filter(Boolean).join(" · ");
  const what = el("span", { class: "what" }, el("b", {}, short(one.to)), el("small", {}, about));
  const worth = el("span", { class: "worth" }, el("span", { class: "sum" }, money(one.amount, one.asset)), badge(one.status));
  const to = one.transfer_id && `#/receipt/${one.transfer_id}`;
  return el("li", {}, el(to ? "a" : "div", { href: to, class: "movement" }, what, worth));
}
