// All movements, as many as wanted, filtered.

import { assets, nameOf, wallets } from "../account.js";
import { download, get } from "../api.js";
import { button, el, put } from "../dom.js";
import { field, form, input, select } from "../form.js";
import { t } from "../language.js";
import { heading, movements, panel, walletField } from "../parts.js";

const STATES = ["committed", "rejected", "expired", "prepared", "submitted", "queued"];

export async function history({ watch }) {
  const [held, all] = await Promise.all([wallets(), assets()]);
  const any = ["", t("history.any")];
  const choice = (name, label, options) => field(label, select(name, [any, ...options]));
  const fields = [
    choice(
      "wallet_id",
      t("field.wallet"),
      held.map((wallet) => [wallet.id, nameOf(wallet)]),
    ),
    choice(
      "asset",
      t("field.asset"),
      all.map(({ code }) => [code, code]),
    ),
    choice(
      "direction",
      t("history.direction"),
      ["sent", "received"].map((one) => [one, t(`history.${one}`)]),
    ),
    choice(
      "status",
      t("history.status"),
      STATES.map((one) => [one, t(`status.${one}`)]),
    ),
    field(t("history.text"), input("text", { type: "search", required: false, maxlength: 140 })),
    field(t("history.since"), input("from", { type: "date", required: false })),
    field(t("history.until"), input("to", { type: "date", required: false })),
  ];
  const list = el("div", { "aria-live": "polite" });
  let filters = {};
  let pages = 1;

  const look = async () => {
    let lines = [];
    let cursor = null;
    for (let page = 0; page < pages; page += 1) {
      const answer = await get("/v1/transfers", { ...filters, cursor });
      lines = [...lines, ...answer.items];
      cursor = answer.next_cursor;
      if (cursor === null) break;
    }
    const more =
      cursor !== null &&
      button(t("history.more"), () => {
        pages += 1;
        return look();
      });
    put(list, movements(lines), more);
  };
  const find = form([el("div", { class: "filters" }, fields)], t("history.find"), async (values) => {
    filters = { ...values, ...span(values.from, values.to) };
    pages = 1;
    await look();
  });
  watch(look);
  await look();
  return [
    heading(t("menu.history")),
    panel(null, el("details", {}, el("summary", {}, t("history.filter")), find), list),
    panel(t("history.statements"), statement(held)),
  ];
}

// What a wallet held before, what happened, what it held after.
function statement(held) {
  const fields = [
    walletField(held),
    field(t("history.since"), input("from", { type: "date", required: false })),
    field(t("history.until"), input("to", { type: "date", required: false })),
    field(
      t("history.format"),
      select("format", [
        ["pdf", "PDF"],
        ["csv", "CSV"],
      ]),
    ),
  ];
  return form([el("div", { class: "filters" }, fields)], t("history.statement"), async ({ wallet_id, format, from, to }) => {
    const query = new URLSearchParams(Object.entries(span(from, to)).filter(([, at]) => at));
    const name = nameOf(held.find(({ id }) => id === wallet_id));
    await download(`/v1/statements/${wallet_id}.${format}?${query}`, `${[name, from, to].filter(Boolean).join(" ")}.${format}`);
  });
}

// Whole days where the person is.
function span(from, to) {
  const at = (date, clock) => date && new Date(`${date}T${clock}`).toISOString();
  return { from: at(from, "00:00:00"), to: at(to, "23:59:59.999") };
}
