// The person's own things: name, password, where else they are logged in, leaving.

import { me } from "../account.js";
import { call, get, logOut, post } from "../api.js";
import { button, el, put, say } from "../dom.js";
import { field, form, input } from "../form.js";
import { t, time } from "../language.js";
import { confirmed, copyable, facts, heading, note, panel } from "../parts.js";
import { notifications } from "./notifications.js";
import { passkeys } from "./passkeys.js";
import { code, unverified } from "./sign_in.js";

export async function settings({ again }) {
  const profile = await me(true);
  const sessions = el("ul", { class: "cards" });
  const look = async () =>
    put(
      sessions,
      (await get("/v1/sessions")).items.map((one) => session(one, look)),
    );
  await look();
  return [
    heading(t("menu.settings")),
    await unverified(profile),
    panel(t("settings.profile"), facts([[t("field.email"), profile.email]]), nameForm(profile)),
    panel(t("settings.password"), passwordForm()),
    panel(t("settings.passkeys"), await passkeys()),
    panel(t("settings.second"), secondFactor(profile, again)),
    panel(t("settings.notify"), await notifications()),
    panel(t("settings.sessions"), sessions),
    panel(t("settings.close"), el("p", {}, t("settings.close_lead")), closeForm()),
  ].filter(Boolean);
}

function nameForm(profile) {
  return form(
    [field(t("field.name"), input("name", { value: profile.name, autocomplete: "name", maxlength: 100 }))],
    t("action.save"),
    async (values) => {
      await call("PATCH", "/v1/me", values);
      await me(true);
      say(t("said.saved"));
    },
  );
}

function passwordForm() {
  const old = field(t("settings.current"), input("current", { type: "password", autocomplete: "current-password" }));
  const fresh = field(t("settings.new"), input("new", { type: "password", autocomplete: "new-password" }), t("hint.password"));
  const change = form([old, fresh], t("action.save"), async (values) => {
    await call("PUT", "/v1/me/password", values);
    change.reset();
    say(t("said.saved"));
  });
  return change;
}

// An authenticator app's codes, asked for at each log-in.
function secondFactor(profile, again) {
  if (profile.second_factor) {
    const stop = form([code()], t("settings.second_stop"), async (values) => {
      await call("DELETE", "/v1/me/totp", values);
      await again();
    });
    return el("div", {}, el("p", {}, t("settings.second_on")), stop);
  }
  const password = field(t("field.password"), input("password", { type: "password", autocomplete: "current-password" }));
  const start = form([password], t("settings.second_start"), async (values) => {
    const { secret, uri } = await post("/v1/me/totp", values);
    const confirm = form([code()], t("action.confirm"), async (typed) => {
      const { recovery_codes } = await post("/v1/me/totp/confirm", typed);
      place.replaceChildren(note(t("settings.second_codes"), "good"), el("pre", {}, recovery_codes.join("\n")));
    });
    place.replaceChildren(
      copyable(t("settings.second_secret"), secret),
      el("p", {}, el("a", { href: uri }, t("settings.second_app"))),
      confirm,
    );
    place.querySelector("input").focus();
  });
  const place = el("div", {}, el("p", {}, t("settings.second_lead")), start);
  return place;
}

// Of what a browser says of itself, the first that is there: most name others, too.
const BROWSERS = { Edg: "Edge", OPR: "Opera", SamsungBrowser: "Samsung Internet", Firefox: "Firefox", FxiOS: "Firefox" };
const OTHERS = { CriOS: "Chrome", HeadlessChrome: "Chrome", Chrome: "Chrome", Safari: "Safari" };
const SYSTEMS = { Android: "Android", iPhone: "iPhone", iPad: "iPad", Windows: "Windows", "Mac OS X": "macOS", Linux: "Linux" };

function device(agent) {
  const named = (names, mark) => Object.entries(names).find(([sign]) => agent.includes(sign + mark))?.[1];
  const browser = named({ ...BROWSERS, ...OTHERS }, "/");
  return browser ? [browser, named(SYSTEMS, "")].filter(Boolean).join(", ") : agent;
}

function session(one, look) {
  const words = [device(one.user_agent), one.address, time(one.last_used_at)].filter(Boolean).join(" · ");
  const end = button(t("settings.end"), async () => {
    await call("DELETE", `/v1/sessions/${one.id}`);
    await look();
  });
  return el("li", { class: "card" }, el("p", { title: one.user_agent }, words), el("p", {}, one.current ? el("b", {}, t("settings.this")) : end));
}

function closeForm() {
  const password = field(t("field.password"), input("password", { type: "password", autocomplete: "current-password" }));
  const close = form([password], t("settings.close"), async (values) => {
    if (!(await confirmed(t("settings.close_confirm"), [], t("settings.close")))) return;
    await call("DELETE", "/v1/me", values);
    await logOut().catch(() => {});
  });
  close.classList.add("final");
  return close;
}
