// One transfer: what became of it, and the proof that anybody can check without trusting this gateway.

import { get, download } from "../api.js";
import { button, el, put } from "../dom.js";
import { known, money, t, time } from "../language.js";
import { badge, code, copyable, facts, heading, panel } from "../parts.js";

const FINAL = new Set(["committed", "rejected", "expired"]);

export async function receipt({ id, watch }) {
  const state = el("div", { "aria-live": "polite" });
  let done = false;
  const look = async () => {
    if (done) return;
    const view = await get(`/v1/transfers/${id}`);
    done = FINAL.has(view.status);
    put(
      state,
      panel(null, el("p", { class: "big" }, money(view.amount, view.asset), " ", badge(view.status)), facts(rows(view))),
      proof(view),
    );
  };
  watch(look);
  await look();
  return [heading(t("menu.receipt")), state];
}

function rows(view) {
  const legs =
    view.legs.length > 1
      ? el(
          "ul",
          {},
          view.legs.map((leg) => el("li", {}, `${money(leg.amount, leg.asset)} → `, code(leg.to))),
        )
      : null;
  return [
    [t("receipt.why"), view.code && (known(`error.${view.code}`) ?? view.code)],
    [t("field.from"), code(view.from)],
    [t("field.to"), code(view.to)],
    [t("receipt.legs"), legs],
    [t("field.memo"), view.memo],
    [t("receipt.fee"), view.fee && money(view.fee, view.asset)],
    [t("receipt.made"), time(view.created_at)],
    [t("receipt.final"), view.finalized_at && time(view.finalized_at)],
    [t("receipt.block"), view.height && t("receipt.place", { shard: view.home_shard, height: view.height })],
    [t("receipt.id"), code(view.id)],
  ];
}

function proof(view) {
  if (view.status !== "committed" || view.height === null) return null;
  const file = `proof-${view.id.slice(0, 12)}.json`;
  const fetched = button(t("receipt.download"), () => download(`/v1/transactions/${view.id}/proof`, file));
  const command = copyable(t("receipt.command"), `python -m gateway verify ${file} --genesis genesis.json`);
  return panel(t("receipt.proof"), el("p", {}, t("receipt.proof_lead")), el("div", { class: "buttons" }, fetched), command);
}
