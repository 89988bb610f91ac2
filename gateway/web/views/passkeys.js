// A person's passkeys, in the settings: which there are, another one, their names.

import { call, get } from "../api.js";
import { button, el, put, say } from "../dom.js";
import { field, form, input } from "../form.js";
import { t, time } from "../language.js";
import { confirmed, listed, note } from "../parts.js";
import { addPasskey, passkeyPlace } from "../passkeys.js";
import { askingForCode } from "./sign_in.js";

export async function passkeys() {
  const list = el("div");
  const look = async () => {
    const { items } = await get("/v1/me/passkeys");
    put(
      list,
      listed(items, (one) => shown(one, look), "settings.passkeys_none"),
    );
  };
  await look();
  return el("div", {}, el("p", {}, t("settings.passkeys_lead")), list, await adding(look));
}

async function adding(look) {
  const { here, origin } = await passkeyPlace();
  if (origin)
    return el("p", {}, `${t("settings.passkeys_elsewhere")} `, el("a", { href: `${origin}/#/settings` }, new URL(origin).host));
  if (!here) return note(t("settings.passkeys_not"));
  const platform = navigator.userAgentData?.platform || navigator.platform;
  const name = input("name", { value: platform, maxlength: 100 });
  const password = input("password", { type: "password", autocomplete: "current-password" });
  const [second, act] = askingForCode(async ({ name: called, ...proof }) => {
    await addPasskey(called, proof);
    add.reset();
    second.replaceChildren();
    say(t("settings.passkey_added"));
    await look();
  });
  const fields = [field(t("settings.passkey_name"), name), field(t("field.password"), password), second];
  const add = form(fields, t("settings.passkey_add"), act);
  return add;
}

function shown(one, look) {
  const path = `/v1/me/passkeys/${one.id}`;
  const [made, used] = [time(one.created_at), time(one.last_used_at)];
  const when = one.last_used_at ? t("settings.passkey_times", { made, used }) : t("settings.passkey_new", { made });
  const rename = form(
    [field(t("settings.passkey_name"), input("name", { value: one.name, maxlength: 100 }))],
    t("action.save"),
    async (values) => {
      await call("PATCH", path, values);
      await look();
    },
  );
  const remove = button(t("action.remove"), async () => {
    if (!(await confirmed(t("settings.passkey_remove"), [[t("settings.passkey_name"), one.name]], t("action.remove")))) return;
    await call("DELETE", path);
    await look();
  });
  return el(
    "li",
    { class: "card" },
    el("p", {}, el("b", {}, one.name), ` · ${when}`),
    el("details", {}, el("summary", {}, t("action.rename")), rename),
    remove,
  );
}
