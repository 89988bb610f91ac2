// The checkout: who asks for how much and what for, and one button. Afterwards back to the shop, if it said where that is.

import { wallets } from "../account.js";
import { get, order } from "../api.js";
import { el, put } from "../dom.js";
import { form } from "../form.js";
import { money, t, time } from "../language.js";
import { badge, facts, heading, link, panel, walletField } from "../parts.js";
import { toShow } from "./request.js";

const RETURN = 1500; // ms in which to read that it is paid
const PAID = new Set(["succeeded", "requires_capture"]);

export async function pay({ id, watch }) {
  const path = `/v1/payment-intents/${encodeURIComponent(id)}`;
  const held = await wallets();
  const state = el("div", { "aria-live": "polite" });
  let status = null;
  const show = (intent) => {
    if (intent.status === status) return;
    const wasOpen = status !== null;
    status = intent.status;
    put(
      state,
      stateOf(intent, held, async (values, key) => show(await order(`${path}/confirm`, values, key))),
    );
    if (wasOpen && PAID.has(status) && web(intent.success_url)) setTimeout(() => location.assign(intent.success_url), RETURN);
  };
  watch(async () => show(await get(path)));
  const intent = await get(path);
  show(intent);
  const rows = [
    [t("pay.to"), intent.merchant],
    [t("field.description"), intent.description],
    [t("pay.until"), time(intent.expires_at)],
  ];
  return el(
    "div",
    { class: "narrow" },
    heading(t("menu.pay")),
    panel(null, el("p", { class: "big" }, money(intent.amount, intent.asset)), facts(rows)),
    state,
  );
}

function stateOf(intent, held, confirm) {
  const away = (url, words) => web(url) && el("a", { href: url, class: "plain" }, words);
  if (intent.status === "requires_payment") {
    const label = t("pay.now", { sum: money(intent.amount, intent.asset) });
    const payers = held.filter(({ id }) => id !== intent.wallet_id);
    const payable = form([walletField(payers, t("field.from"), "from_wallet")], label, confirm, away(intent.cancel_url, t("pay.not")));
    return [payers.length < held.length && toShow(intent), payers.length > 0 && panel(null, payable)];
  }
  const proof = intent.transfer_id && link(`receipt/${intent.transfer_id}`, t("action.receipt"));
  const back = PAID.has(intent.status) ? away(intent.success_url, t("pay.back")) : away(intent.cancel_url, t("pay.back"));
  return panel(null, el("p", { class: "big" }, badge(intent.status)), el("p", { class: "links" }, proof, back));
}

// Only web addresses are followed: never javascript: or data:.
const web = (url) => typeof url === "string" && /^https?:\/\//.test(url);
