// Coins to a bank account.

import { assets, me, wallets } from "../account.js";
import { get, order } from "../api.js";
import { el, put } from "../dom.js";
import { field, form, input } from "../form.js";
import { money, t, time } from "../language.js";
import { amountFields, badge, confirmed, empty, heading, link, panel, walletField } from "../parts.js";
import { unverified } from "./sign_in.js";

export async function cashOut({ watch }) {
  const [held, all, profile] = await Promise.all([wallets(), assets(), me(true)]);
  const list = el("div", { "aria-live": "polite" });
  const look = async () => put(list, payouts((await get("/v1/payouts")).items));
  const iban = input("iban", { maxlength: 42, spellcheck: "false", autocapitalize: "characters" });
  const name = input("name", { autocomplete: "name", value: profile.name, maxlength: 100 });
  const fields = [amountFields(all), walletField(held), field(t("field.iban"), iban), field(t("field.holder"), name)];
  const pay = form(fields, t("menu.cash_out"), async (values, key) => {
    const rows = [
      [t("field.amount"), money(values.amount, values.asset)],
      [t("field.iban"), values.iban],
      [t("field.holder"), values.name],
    ];
    if (!(await confirmed(t("cash_out.confirm"), rows, t("menu.cash_out")))) return;
    await order("/v1/payouts", values, key);
    pay.elements.amount.value = "";
    await look();
  });
  watch(look);
  await look();
  return [
    heading(t("menu.cash_out")),
    await unverified(profile),
    panel(null, el("p", { class: "lead" }, t("cash_out.lead")), pay),
    panel(t("cash_out.list"), list),
  ].filter(Boolean);
}

const payouts = (items) => (items.length ? el("ul", { class: "cards" }, items.map(payout)) : empty(t("cash_out.none")));

function payout(one) {
  const line = el(
    "p",
    {},
    el("b", {}, money(one.amount, one.asset)),
    ` · ${one.iban} · ${time(one.created_at)} `,
    badge(one.status),
  );
  const proof = one.transfer_id && link(`receipt/${one.transfer_id}`, t("action.receipt"));
  return el("li", { class: "card" }, line, el("p", { class: "links" }, proof));
}
