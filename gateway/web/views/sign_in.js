// Getting in: log in, sign up, verify the address, a new password.

import { gateway } from "../account.js";
import { logIn, loggedIn, post, request } from "../api.js";
import { button, el } from "../dom.js";
import { field, form, input } from "../form.js";
import { language, t } from "../language.js";
import { heading, link, note, panel } from "../parts.js";
import { logInWithPasskey, passkeyPlace } from "../passkeys.js";

const email = () => field(t("field.email"), input("email", { type: "email", autocomplete: "username" }));
const password = (kind, hint) => field(t("field.password"), input("password", { type: "password", autocomplete: kind }), hint);

export const code = () => field(t("field.code"), input("code", { autocomplete: "one-time-code", maxlength: 40 }), t("hint.code"));

// Where a code goes, and what is to be done, which has it asked for when the gateway does.
export function askingForCode(act) {
  const place = el("div");
  const tried = (values) =>
    act(values).catch((problem) => {
      if (problem.code === "code_required") place.replaceChildren(code());
      throw problem;
    });
  return [place, tried];
}

// On a development network mails are not sent; they can be read here.
async function outboxLink() {
  return (await gateway()).devnet && el("p", {}, link("outbox", t("outbox.link")));
}

export async function login({ go }) {
  if (loggedIn()) {
    go("");
    return heading(t("menu.login"));
  }
  const [second, act] = askingForCode(async (values) => {
    await logIn(values.email, values.password, values.code);
    go("");
  });
  const enter = form([email(), password("current-password"), second], t("menu.login"), act);
  const byPasskey = async () => {
    await logInWithPasskey();
    go("");
  };
  const passkey = (await passkeyPlace()).here && button(t("login.passkey"), byPasskey);
  const others = el("p", { class: "links" }, link("signup", t("login.new")), link("forgot", t("login.forgot")));
  return el(
    "div",
    { class: "narrow" },
    heading(t("menu.login")),
    el("p", { class: "lead" }, t("login.lead")),
    panel(null, enter, passkey, others),
  );
}

export async function signup({ go }) {
  const name = field(t("field.name"), input("name", { autocomplete: "name" }));
  const fields = [name, email(), password("new-password", t("hint.password"))];
  const join = form(fields, t("menu.signup"), async (values) => {
    const response = await request("POST", "/v1/auth/register", { body: { ...values, language }, anonymous: true });
    if (response.status === 202) return panelOf.replaceChildren(note(t("signup.mail_sent"), "good"), (await outboxLink()) || "");
    await logIn(values.email, values.password);
    return go("");
  });
  const panelOf = panel(null, join, el("p", { class: "links" }, link("login", t("signup.known"))));
  return el("div", { class: "narrow" }, heading(t("menu.signup")), el("p", { class: "lead" }, t("login.lead")), panelOf);
}

export async function verify({ query }) {
  await request("POST", "/v1/auth/verify", { body: { token: query.get("token") ?? "" }, anonymous: true });
  const onward = loggedIn() ? link("", t("verify.onward"), "button") : link("login", t("menu.login"), "button");
  return el("div", { class: "narrow" }, heading(t("menu.verify")), note(t("verify.done"), "good"), onward);
}

export async function forgot() {
  const ask = form([email()], t("forgot.send"), async (values) => {
    await request("POST", "/v1/auth/password/forgot", { body: values, anonymous: true });
    panelOf.replaceChildren(note(t("forgot.sent"), "good"), (await outboxLink()) || "");
  });
  const panelOf = panel(null, ask);
  return el("div", { class: "narrow" }, heading(t("menu.forgot")), el("p", { class: "lead" }, t("forgot.lead")), panelOf);
}

export async function reset({ query, go }) {
  const change = form([password("new-password", t("hint.password"))], t("action.save"), async (values) => {
    await request("POST", "/v1/auth/password/reset", { body: { token: query.get("token") ?? "", ...values }, anonymous: true });
    go("login");
  });
  return el("div", { class: "narrow" }, heading(t("menu.reset")), el("p", { class: "lead" }, t("reset.lead")), panel(null, change));
}

// A mail with a link, for who has not verified the address yet.
export async function unverified(profile) {
  if (profile.email_verified !== false) return null;
  const again = form([], t("verify.again"), async () => {
    await post("/v1/auth/verification", { email: profile.email });
    again.replaceWith(el("p", {}, t("verify.sent")));
  });
  return el(
    "div",
    { class: "notice wait" },
    el("p", {}, t("verify.needed", { email: profile.email })),
    again,
    await outboxLink(),
  );
}
