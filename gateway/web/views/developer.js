// For who builds a shop: keys to the API, where webhooks go, and what became of each.

import { me } from "../account.js";
import { call, get, post } from "../api.js";
import { button, el, put } from "../dom.js";
import { checkbox, field, form, input } from "../form.js";
import { t, time } from "../language.js";
import { badge, code, confirmed, copyable, heading, listed, panel } from "../parts.js";
import { unverified } from "./sign_in.js";

const SCOPES = ["read", "payments", "checkout", "webhooks"];

export async function developer({ watch }) {
  const profile = await me(true);
  const docs = el("p", {}, el("a", { href: "/docs" }, t("developer.docs")));
  return [heading(t("menu.developer")), await unverified(profile), docs, await keys(), await endpoints(watch)].filter(Boolean);
}

async function keys() {
  const [list, made] = [el("div"), el("div", { "aria-live": "polite" })];
  const look = async () =>
    put(
      list,
      listed((await get("/v1/api-keys")).items, (one) => key(one, look), "developer.no_keys"),
    );
  const scopes = el(
    "fieldset",
    {},
    el("legend", {}, t("developer.scopes")),
    SCOPES.map((scope) => checkbox(scope, t(`scope.${scope}`))),
  );
  const make = form(
    [field(t("field.name"), input("name", { maxlength: 100 })), scopes],
    t("developer.make_key"),
    async (values) => {
      const one = await post("/v1/api-keys", { name: values.name, scopes: SCOPES.filter((scope) => values[scope]) });
      make.reset();
      put(made, copyable(t("developer.key_once"), one.key));
      made.querySelector("input").focus();
      await look();
    },
  );
  await look();
  return panel(t("developer.keys"), list, make, made);
}

function key(one, look) {
  const revoke = button(t("developer.revoke"), async () => {
    if (!(await confirmed(t("developer.revoke"), [[t("field.name"), one.name]], t("developer.revoke")))) return;
    await call("DELETE", `/v1/api-keys/${one.id}`);
    await look();
  });
  return el(
    "li",
    { class: "card" },
    el("p", {}, el("b", {}, one.name), ` · ${one.scopes.join(", ")} · ${time(one.created_at)}`),
    revoke,
  );
}

async function endpoints(watch) {
  const [list, made] = [el("div"), el("div", { "aria-live": "polite" })];
  const look = async () =>
    put(
      list,
      listed((await get("/v1/webhook-endpoints")).items, (one) => endpoint(one, look, made, watch), "developer.no_endpoints"),
    );
  const url = field(t("developer.url"), input("url", { type: "url", maxlength: 500 }), t("hint.webhook"));
  const make = form([url], t("developer.make_endpoint"), async (values) => {
    const one = await post("/v1/webhook-endpoints", { url: values.url, events: ["*"] });
    make.reset();
    put(made, copyable(t("developer.secret_once"), one.secret));
    made.querySelector("input").focus();
    await look();
  });
  await look();
  return panel(t("developer.endpoints"), list, make, made);
}

function endpoint(one, look, made, watch) {
  const path = `/v1/webhook-endpoints/${one.id}`;
  const then = (act) => async () => {
    await act();
    await look();
  };
  const toggle = button(
    t(one.enabled ? "developer.disable" : "developer.enable"),
    then(() => call("PATCH", path, { enabled: !one.enabled })),
  );
  const rotate = button(t("developer.rotate"), async () =>
    put(made, copyable(t("developer.secret_once"), (await post(`${path}/rotate-secret`)).secret)),
  );
  const remove = button(t("action.delete"), async () => {
    if (await confirmed(t("action.delete"), [[t("developer.url"), one.url]], t("action.delete")))
      await then(() => call("DELETE", path))();
  });
  return el(
    "li",
    { class: "card" },
    el("p", {}, code(one.url), one.enabled ? "" : ` · ${t("developer.off")}`),
    el("p", { class: "links" }, toggle, rotate, remove),
    deliveries(path, watch),
  );
}

function deliveries(path, watch) {
  const list = el("div");
  const look = async () =>
    put(
      list,
      listed((await get(`${path}/deliveries`)).items, (one) => delivery(one, look), "developer.no_deliveries"),
    );
  const details = el("details", {}, el("summary", {}, t("developer.deliveries")), list);
  const lookIfOpen = async () => details.open && look();
  details.addEventListener("toggle", lookIfOpen);
  watch(lookIfOpen);
  return details;
}

function delivery(one, look) {
  const last = one.attempts.at(-1);
  const words = [one.type, last && `${last.status_code ?? last.error ?? ""} (${last.ms} ms)`, last && time(last.at)]
    .filter(Boolean)
    .join(" · ");
  const again = button(t("developer.replay"), async () => {
    await post(`/v1/webhook-deliveries/${one.id}/replay`);
    await look();
  });
  return el("li", {}, el("p", {}, `${words} `, badge(one.status)), again);
}
