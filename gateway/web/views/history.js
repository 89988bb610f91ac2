// All movements, as many as wanted, filtered.

import { assets, nameOf, wallets } from "../account.js";
import { download, get } from "../api.js";
import { button, el, put } from "../dom.js";
import { field, form, input, select } from "../form.js";
import { t } from "../language.js";
import { heading, movements, panel } from "../parts.js";

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
    const day = (date, clock) => date && new Date(`${date}T${clock}`).toISOString();
    filters = { ...values, from: day(values.from, "00:00:00"), to: day(values.to, "23:59:59.999") };
    pages = 1;
    await look();
  });
  watch(look);
  await look();
  const statements = held.map((wallet) =>
    button(`${nameOf(wallet)} (CSV)`, () => download(`/v1/statements/${wallet.id}.csv`, `${nameOf(wallet)}.csv`)),
  );
  return [
    heading(t("menu.history")),
    panel(null, el("details", {}, el("summary", {}, t("history.filter")), find), list),
    panel(t("history.statements"), el("div", { class: "buttons" }, statements)),
  ];
}
