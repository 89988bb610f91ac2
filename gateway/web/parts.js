// What several views show: wallets to choose, amounts to type, movements, states, what to copy, what to confirm.

import { nameOf, short, wallets } from "./account.js";
import { button, byId, el, say, text } from "./dom.js";
import { field, input, select } from "./form.js";
import { known, money, t, time } from "./language.js";

export const heading = (words, ...beside) => el("header", { class: "heading" }, el("h1", { tabindex: "-1" }, words), ...beside);

export const panel = (words, ...children) => el("section", { class: "panel" }, words && el("h2", {}, words), ...children);

const SENDING = ["send", "scheduled", "files"];

// The ways to send money, of which this is one.
export const tabs = (here) =>
  el(
    "ul",
    { class: "tabs" },
    SENDING.map((one) =>
      el("li", {}, el("a", { href: `#/${one}`, "aria-current": one === here && "page" }, t(`tab.${one}`))),
    ),
  );

// What a list has, one beside the other, or that there is nothing.
export const listed = (items, shown, none) =>
  items.length ? el("ul", { class: "cards" }, items.map(shown)) : empty(t(none));

export const link = (to, words, className) => el("a", { href: `#/${to}`, class: className }, words);

export const balancesOf = (wallet) =>
  Object.entries(wallet.balances).filter(([, held]) => /[1-9]/.test(held.available + held.held));

const described = (wallet) =>
  [nameOf(wallet), ...balancesOf(wallet).map(([code, held]) => money(held.available, code))].join(" · ");

export function walletField(wallets, label = t("field.wallet"), name = "wallet_id") {
  return field(
    label,
    select(
      name,
      wallets.map((wallet) => [wallet.id, described(wallet)]),
      null,
      { "data-wallets": true },
    ),
  );
}

// What the wallets on show hold now.
export async function showBalances() {
  const options = [...document.querySelectorAll("select[data-wallets] option")];
  if (options.length === 0) return;
  for (const wallet of await wallets())
    for (const option of options) if (option.value === wallet.id) text(option, described(wallet));
}

// An amount and its asset, side by side.
export function amountFields(assets, { amount = "", asset, label = t("field.amount"), names = ["amount", "asset"] } = {}) {
  const typed = input(names[0], { inputmode: "decimal", "data-amount": true, value: amount, class: "amount" });
  const codes = select(
    names[1],
    assets.map((one) => [one.code, one.code]),
    asset,
    { "aria-label": `${t("field.asset")} (${label})` },
  );
  return el("div", { class: "beside" }, field(label, typed), field(t("field.asset"), codes));
}

const GOOD = new Set(["committed", "completed", "succeeded", "paid", "settled", "active"]);
const BAD = new Set(["rejected", "expired", "declined", "failed", "disputed", "returned", "canceled"]);
const SIGNS = { good: "✓", bad: "✕", wait: "…" };

// A state as a sign and a word, so that it does not depend on colour.
export function badge(status) {
  const kind = GOOD.has(status) ? "good" : BAD.has(status) ? "bad" : "wait";
  return el("span", { class: `badge ${kind}` }, `${SIGNS[kind]} ${known(`status.${status}`) ?? status}`);
}

export const facts = (rows) =>
  el(
    "dl",
    { class: "facts" },
    rows
      .filter(([, value]) => value != null && value !== "")
      .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );

export const code = (words) => el("code", {}, words);

export const note = (words, kind = "") => el("p", { class: `notice ${kind}` }, words);

export const empty = (words) => el("p", { class: "empty" }, words);

// Text that somebody shall take elsewhere.
export function copyable(label, value) {
  const shown = el("input", { value, readonly: true, class: "mono" });
  shown.addEventListener("focus", () => shown.select());
  const copy = button(t("action.copy"), async () => {
    shown.select();
    if (navigator.clipboard) await navigator.clipboard.writeText(value);
    else document.execCommand("copy"); // where the page came without TLS
    say(t("said.copied"));
    copy.textContent = t("said.copied");
  });
  return el("div", { class: "beside end" }, field(label, shown), copy);
}

// A line of the history; leads to its receipt.
function movement(line) {
  const sent = line.direction === "sent";
  const kind = known(`kind.${line.kind}`);
  const title = kind ?? t(sent ? "line.to" : "line.from", { who: short(line.counterparty) });
  const amount = el("span", { class: sent ? "sum" : "sum in" }, `${sent ? "−" : "+"}${money(line.amount, line.asset)}`);
  const when = el("small", {}, [time(line.created_at), !kind && line.memo].filter(Boolean).join(" · "));
  const what = el("span", { class: "what" }, el("b", {}, title), when);
  const worth = el("span", { class: "worth" }, amount, line.status !== "committed" && badge(line.status));
  return el("li", {}, el("a", { href: `#/receipt/${line.id}`, class: "movement" }, what, worth));
}

export const movements = (lines) =>
  lines.length ? el("ol", { class: "movements" }, lines.map(movement)) : empty(t("history.none"));

// Asks before something happens that cannot be taken back. Resolves to whether the person wants it.
export function confirmed(words, rows, label) {
  const dialog = el("dialog", { "aria-labelledby": "confirm-title" }, el("h2", { id: "confirm-title" }, words), facts(rows));
  return new Promise((resolve) => {
    const answer = (value) => () => {
      dialog.returnValue = value;
      dialog.close();
    };
    dialog.append(el("div", { class: "buttons" }, button(label, answer("yes"), ""), button(t("action.back"), answer("no"))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    byId("main").append(dialog);
    dialog.showModal();
  });
}
