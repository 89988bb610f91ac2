// Two people, two amounts, both or neither: offer one, accept one.

import { assets, wallets } from "../account.js";
import { get, make, order, post } from "../api.js";
import { button, el, put } from "../dom.js";
import { form } from "../form.js";
import { money, t, time } from "../language.js";
import { amountFields, badge, copyable, empty, facts, heading, link, panel, walletField } from "../parts.js";

export async function exchange(context) {
  return context.id ? offer(context) : offers(context);
}

const sums = (one) =>
  t("exchange.sums", { give: money(one.give.amount, one.give.asset), want: money(one.want.amount, one.want.asset) });

const shared = (one) => copyable(t("exchange.link"), `${location.origin}/#/exchange/${one.id}`);

async function offers({ watch }) {
  const [held, all] = await Promise.all([wallets(), assets()]);
  const made = el("div", { "aria-live": "polite" });
  const list = el("div");
  const look = async () => put(list, listed((await get("/v1/exchanges")).items));
  const give = amountFields(all, { label: t("exchange.give"), names: ["give", "give_asset"] });
  const want = amountFields(all, { label: t("exchange.want"), names: ["want", "want_asset"], asset: all.at(1)?.code });
  const offering = form([give, want, walletField(held)], t("exchange.make"), async (values, key) => {
    const body = {
      wallet_id: values.wallet_id,
      give: { asset: values.give_asset, amount: values.give },
      want: { asset: values.want_asset, amount: values.want },
    };
    const one = await make("/v1/exchanges", body, key);
    put(made, panel(t("exchange.ready"), el("p", {}, sums(one)), shared(one)));
    made.querySelector("input").focus();
    await look();
  });
  watch(look);
  await look();
  return [
    heading(t("menu.exchange")),
    panel(null, el("p", { class: "lead" }, t("exchange.lead")), offering),
    made,
    panel(t("exchange.list"), list),
  ];
}

function listed(items) {
  const line = (one) =>
    el(
      "li",
      { class: "card" },
      el("p", {}, link(`exchange/${one.id}`, sums(one)), ` · ${time(one.created_at)} `, badge(one.status)),
    );
  return items.length ? el("ul", { class: "cards" }, items.map(line)) : empty(t("exchange.none"));
}

async function offer({ id, watch }) {
  const path = `/v1/exchanges/${encodeURIComponent(id)}`;
  const held = await wallets();
  const state = el("div", { "aria-live": "polite" });
  const show = (one) => put(state, shown(one));
  const shown = (one) => {
    const [pays, gets] = one.mine ? [one.give, one.want] : [one.want, one.give];
    const rows = [
      [t("exchange.you_give"), money(pays.amount, pays.asset)],
      [t("exchange.you_get"), money(gets.amount, gets.asset)],
      [t("pay.until"), time(one.expires_at)],
    ];
    const proof = one.transfer_id && link(`receipt/${one.transfer_id}`, t("action.receipt"));
    return panel(
      null,
      el("p", { class: "big" }, badge(one.status)),
      facts(rows),
      el("p", { class: "links" }, proof),
      one.status === "offered" && deed(one),
    );
  };
  const deed = (one) => {
    if (one.mine) {
      const withdraw = button(t("exchange.withdraw"), async () => show(await post(`${path}/cancel`)));
      return el("div", { class: "panels" }, shared(one), el("div", { class: "buttons" }, withdraw));
    }
    return form([walletField(held)], t("exchange.accept"), async (values, key) =>
      show(await order(`${path}/accept`, values, key)),
    );
  };
  watch(async () => show(await get(path)));
  show(await get(path));
  return el("div", { class: "narrow" }, heading(t("menu.exchange")), state);
}
