// What there is, what happened last, and the ways to what one does most.

import { gateway, me, nameOf, short, wallets } from "../account.js";
import { get } from "../api.js";
import { el, put } from "../dom.js";
import { money, t } from "../language.js";
import { balancesOf, code, heading, link, movements, panel } from "../parts.js";
import { MENU } from "../views.js";
import { unverified } from "./sign_in.js";

const DEEDS = ["buy", "send", "request", "exchange", "cash_out"];

export async function overview({ watch }) {
  const [profile, { shop }] = await Promise.all([me(true), gateway()]);
  const purses = el("div", { class: "purses" });
  const latest = el("div");
  const warning = el("div");
  const look = async () => {
    const [held, { items }] = await Promise.all([wallets(), get("/v1/transfers", { limit: 5 })]);
    put(purses, held.map(purse));
    put(latest, movements(items));
  };
  watch(async (event) => {
    await look();
    if (event === null && warning.firstChild) put(warning, await unverified(await me(true)));
  });
  await look();
  put(warning, await unverified(profile));
  const deeds = el(
    "p",
    { class: "deeds" },
    DEEDS.filter((one) => MENU.includes(one)).map((one) => link(one, t(`menu.${one}`), "button")),
  );
  const all = el("p", { class: "links" }, link("history", t("overview.all")));
  const shopping = shop && el("p", { class: "links" }, el("a", { href: shop }, t("overview.shop")));
  return [
    heading(t("overview.hello", { name: profile.name })),
    warning,
    purses,
    deeds,
    shopping,
    panel(t("overview.latest"), latest, all),
  ].filter(Boolean);
}

function purse(wallet) {
  const lines = balancesOf(wallet).map(([asset, held]) =>
    el(
      "p",
      { class: "balance" },
      money(held.available, asset),
      /[1-9]/.test(held.held) && el("small", {}, t("overview.held", { sum: money(held.held, asset) })),
    ),
  );
  const address = el("small", { class: "quiet" }, code(short(wallet.address)));
  return el(
    "section",
    { class: "panel purse" },
    el("h2", {}, nameOf(wallet)),
    lines.length ? lines : el("p", { class: "balance" }, "0"),
    address,
  );
}
