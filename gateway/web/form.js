// Forms: each control has a label, what is wrong stands at it and is read out, and nothing is sent twice.

import { Problem, newKey } from "./api.js";
import { el, text } from "./dom.js";
import { decimal, known, t } from "./language.js";

let count = 0;

export function field(label, control, hint) {
  control.id ||= `field-${++count}`;
  const problem = el("span", { class: "problem", id: `${control.id}-problem` });
  const small = hint && el("small", { id: `${control.id}-hint` }, hint);
  control.setAttribute("aria-describedby", hint ? `${control.id}-hint ${control.id}-problem` : `${control.id}-problem`);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, small, problem);
}

export const input = (name, attributes = {}) => el("input", { name, required: true, autocomplete: "off", ...attributes });

// `options`: [value, words].
export function select(name, options, chosen, attributes = {}) {
  const made = options.map(([value, words]) => el("option", { value, selected: value === chosen }, words));
  return el("select", { name, ...attributes }, made);
}

export const checkbox = (name, words, checked = false) =>
  el("label", { class: "check" }, el("input", { type: "checkbox", name, value: "yes", checked }), ` ${words}`);

// Which control a problem is about, by its code, where the gateway names no field, or names one that is typed otherwise here.
const ABOUT = {
  below_smallest_balance: "amount",
  invalid_amount: "amount",
  invalid_address: "to",
  unknown_recipient: "to",
  same_account: "to",
  amount_too_large: "amount",
  amount_too_small: "amount",
  code_required: "code",
  wrong_code: "code",
  email_taken: "email",
  invalid_recipient: "to",
  weak_password: "password new",
  invalid_card_number: "number",
  invalid_cvc: "cvc",
  invalid_iban: "iban",
  invalid_url: "url",
  address_refused: "url",
  name_not_found: "url",
  unknown_asset: "asset",
  purchase_limit: "amount",
  wrong_password: "current password",
  invalid_payment_file: "file",
  invalid_time: "starts_at",
  exp_month: "expiry",
  exp_year: "expiry",
};

// `act(values, key)` does it. The key stays the same while the same is asked for and no answer came: for Idempotency-Key.
export function form(fields, label, act, ...more) {
  const problem = el("p", { class: "problem", role: "alert" });
  const submit = el("button", { type: "submit" }, label);
  const element = el("form", { novalidate: true }, ...fields, problem, el("div", { class: "buttons" }, submit, ...more));
  let key = newKey();
  element.addEventListener("input", ({ target }) => {
    key = newKey();
    settle(target);
  });
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (submit.disabled) return;
    clear(element, problem);
    submit.disabled = true;
    element.setAttribute("aria-busy", "true");
    try {
      await act(valuesOf(element), key);
      key = newKey();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status >= 400 && error.status < 500) key = newKey();
      show(element, problem, error);
    } finally {
      submit.disabled = false;
      element.removeAttribute("aria-busy");
    }
  });
  return element;
}

// Trimmed, but for passwords; amounts as decimal strings. Raises Problem on what is missing or no amount.
function valuesOf(element) {
  const values = {};
  for (const control of element.elements) {
    if (!control.name || (control.type === "checkbox" && !control.checked)) continue;
    const value = control.type === "password" ? control.value : control.value.trim();
    if (control.required && value === "") throw new Problem("required", 0, [control.name]);
    values[control.name] = control.dataset.amount === undefined || value === "" ? value : decimal(value);
    if (values[control.name] === null) throw new Problem("invalid_amount", 0, [control.name]);
  }
  return values;
}

function clear(element, problem) {
  text(problem, "");
  for (const control of element.querySelectorAll("[aria-invalid]")) settle(control);
}

// What was wrong with a control is not said any more.
function settle(control) {
  if (!control.hasAttribute("aria-invalid")) return;
  control.removeAttribute("aria-invalid");
  text(document.getElementById(`${control.id}-problem`), "");
}

function show(element, problem, error) {
  const names = [...error.fields, error.code].flatMap((name) => (ABOUT[name] ?? name).split(" "));
  const named = names.map((name) => element.elements.namedItem(name)).find((one) => one?.id);
  if (named === undefined) {
    text(problem, wordsOf(error));
    return;
  }
  named.setAttribute("aria-invalid", "true");
  text(document.getElementById(`${named.id}-problem`), wordsOf(error));
  named.focus();
}

// A problem in the person's words. A code without words is shown, so that it can be asked about.
export const wordsOf = (problem) => known(`error.${problem.code}`) ?? t("error.other", { code: problem.code });
