// Asking to be paid: a link and a QR code that lead whoever has them to the page that pays.

import { assets, wallets } from "../account.js";
import { get, make, post } from "../api.js";
import { button, el, put } from "../dom.js";
import { field, form, input } from "../form.js";
import { money, t, time } from "../language.js";
import { amountFields, badge, copyable, empty, heading, link, panel, walletField } from "../parts.js";

const OPEN = new Set(["requires_payment", "requires_capture"]);

export async function request({ watch }) {
  const [held, all] = await Promise.all([wallets(), assets()]);
  const made = el("div", { "aria-live": "polite" });
  const list = el("div");
  const look = async () => put(list, requests((await get("/v1/payment-intents")).items, look));
  const what = field(t("field.description"), input("description", { required: false, maxlength: 200 }), t("hint.description"));
  const ask = form([amountFields(all), walletField(held, t("field.into")), what], t("request.make"), async (values, key) => {
    const day = 24 * 3600;
    put(made, toShow(await make("/v1/payment-intents", { ...values, expires_in: day }, key)));
    made.querySelector("input").focus();
    await look();
  });
  watch(look);
  await look();
  return [heading(t("menu.request")), panel(null, ask), made, panel(t("request.list"), list)];
}

// What leads to the page that pays it.
export function toShow(intent) {
  const qr = el("img", {
    src: `/v1/payment-intents/${intent.id}/qr.svg`,
    alt: t("request.qr"),
    width: 200,
    height: 200,
    class: "qr",
  });
  return panel(
    t("request.ready", { sum: money(intent.amount, intent.asset) }),
    copyable(t("request.link"), intent.checkout_url),
    qr,
  );
}

const requests = (items, look) =>
  items.length
    ? el(
        "ul",
        { class: "cards" },
        items.map((one) => shown(one, look)),
      )
    : empty(t("request.none"));

function shown(intent, look) {
  const about = [intent.description, time(intent.created_at)].filter(Boolean).join(" · ");
  const line = el("p", {}, el("b", {}, money(intent.amount, intent.asset)), ` · ${about} `, badge(intent.status));
  const cancel =
    OPEN.has(intent.status) &&
    button(t("action.cancel"), async () => {
      await post(`/v1/payment-intents/${intent.id}/cancel`);
      await look();
    });
  const where = intent.status === "requires_payment" && link(`pay/${intent.id}`, t("request.open"));
  const proof = intent.transfer_id && link(`receipt/${intent.transfer_id}`, t("action.receipt"));
  return el("li", { class: "card" }, line, el("p", { class: "links" }, where, proof, cancel));
}
