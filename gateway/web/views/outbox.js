// On a development network: the mails that would have been sent.

import { call } from "../api.js";
import { el, put } from "../dom.js";
import { t, time } from "../language.js";
import { empty, heading, panel } from "../parts.js";

export async function outbox({ watch }) {
  const list = el("div");
  const look = async () => {
    const { items } = await call("GET", "/v1/devnet/mails", undefined, { anonymous: true });
    put(list, items.length ? items.map(shown) : empty(t("outbox.none")));
  };
  watch(look);
  await look();
  return [heading(t("menu.outbox")), el("p", { class: "lead" }, t("outbox.lead")), list];
}

function shown(mail) {
  const envelope = el("p", { class: "quiet" }, `${mail.to} · ${time(mail.sent_at)}`);
  return panel(mail.subject, envelope, el("p", { class: "mail" }, withLinks(mail.text)));
}

// Only addresses of this very page become links.
function withLinks(text) {
  return text
    .split(/(https?:\/\/\S+)/)
    .map((part) => (part.includes("/#/") ? el("a", { href: part.slice(part.indexOf("#/")) }, part) : part));
}
