// Buying coins by card. The card's number goes into the one call that buys, and nowhere else.

import { assets, gateway, me, wallets } from "../account.js";
import { Problem, get, order, post } from "../api.js";
import { button, el, put } from "../dom.js";
import { field, form, input } from "../form.js";
import { known, money, t, time } from "../language.js";
import { amountFields, badge, confirmed, empty, facts, heading, link, panel, walletField } from "../parts.js";
import { unverified } from "./sign_in.js";

const CARDS = [
  ["4242 4242 4242 4242", "buy.approves"],
  ["4000 0000 0000 0002", "buy.declines"],
  ["4000 0000 0000 3220", "buy.confirms"],
];

export async function buy({ watch }) {
  const [held, all, profile, { devnet }] = await Promise.all([wallets(), assets(), me(true), gateway()]);
  const list = el("div", { "aria-live": "polite" });
  const look = async () => put(list, purchases((await get("/v1/purchases")).items, look));
  const card = form([amountFields(all), walletField(held), ...cardFields()], t("buy.pay"), async (values, key) => {
    const { number, expiry, cvc, ...rest } = values;
    await order("/v1/purchases", { ...rest, card: { number: number.replace(/\D/g, ""), ...expiryOf(expiry), cvc } }, key);
    for (const name of ["number", "expiry", "cvc"]) card.elements[name].value = "";
    await look();
  });
  watch(look);
  await look();
  const hints =
    devnet && el("details", {}, el("summary", {}, t("buy.test_cards")), facts(CARDS.map(([number, what]) => [number, t(what)])));
  return [
    heading(t("menu.buy")),
    await unverified(profile),
    panel(null, el("p", { class: "lead" }, t("buy.lead")), card, hints),
    panel(t("buy.list"), list),
  ].filter(Boolean);
}

function cardFields() {
  const number = input("number", {
    inputmode: "numeric",
    autocomplete: "cc-number",
    maxlength: 23,
    placeholder: "0000 0000 0000 0000",
  });
  const expiry = input("expiry", { inputmode: "numeric", autocomplete: "cc-exp", maxlength: 7, placeholder: "MM/YY" });
  const cvc = input("cvc", { inputmode: "numeric", autocomplete: "cc-csc", maxlength: 4 });
  return [
    field(t("field.card"), number),
    el("div", { class: "beside" }, field(t("field.expiry"), expiry), field(t("field.cvc"), cvc)),
  ];
}

function expiryOf(typed) {
  const found = typed.match(/^(\d{1,2})\s*[/.-]?\s*(?:20)?(\d{2})$/);
  if (found === null) throw new Problem("invalid_expiry", 0, ["expiry"]);
  return { exp_month: Number(found[1]), exp_year: 2000 + Number(found[2]) };
}

function purchases(items, look) {
  return items.length
    ? el(
        "ul",
        { class: "cards" },
        items.map((one) => purchase(one, look)),
      )
    : empty(t("buy.none"));
}

function purchase(one, look) {
  const line = el(
    "p",
    {},
    el("b", {}, money(one.amount, one.asset)),
    ` · ${one.card.brand} ···· ${one.card.last4} · ${time(one.created_at)} `,
    badge(one.status),
  );
  const why = one.decline_code && el("p", { class: "problem" }, known(`decline.${one.decline_code}`) ?? t("decline.other"));
  const refunded =
    /[1-9]/.test(one.amount_refunded ?? "") && el("p", {}, t("buy.refunded", { sum: money(one.amount_refunded, one.asset) }));
  const proof = one.transfer_id && link(`receipt/${one.transfer_id}`, t("action.receipt"));
  const back = one.status === "completed" && button(t("buy.give_back"), () => giveBack(one, look));
  return el(
    "li",
    { class: "card" },
    line,
    why,
    refunded,
    one.next_action && confirmation(one, look),
    el("p", { class: "links" }, proof, back),
  );
}

function confirmation(one, look) {
  const digits = field(
    t("buy.code"),
    input("code", { inputmode: "numeric", autocomplete: "one-time-code", maxlength: 12 }),
    one.next_action.hint,
  );
  return form([digits], t("buy.confirm"), async (values) => {
    await post(`/v1/purchases/${one.id}/confirm`, values);
    await look();
  });
}

async function giveBack(one, look) {
  const rows = [
    [t("field.amount"), money(one.amount, one.asset)],
    [t("field.card"), `${one.card.brand} ···· ${one.card.last4}`],
  ];
  if (await confirmed(t("buy.give_back"), rows, t("buy.give_back"))) {
    await order("/v1/refunds", { purchase_id: one.id }, `back-${one.id}`);
    await look();
  }
}
