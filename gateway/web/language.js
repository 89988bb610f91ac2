// Words, amounts and times in the person's language.

export const LANGUAGES = { en: "English", de: "Deutsch", es: "Español", zh: "中文" };
const STORED = "language";

export let language = "en";
let messages = {};

// The person's own variety of the language, if the browser names one: Mexico writes numbers otherwise than Spain.
const locale = () => navigator.languages.find((one) => one.split("-")[0] === language) ?? language;

export function preferred() {
  const wanted = [localStorage.getItem(STORED), ...navigator.languages.map((one) => one.split("-")[0])];
  return wanted.find((one) => one in LANGUAGES) ?? "en";
}

export async function speak(code) {
  const answer = await fetch(`/web/messages/${code}.json`);
  messages = await answer.json();
  language = code;
  localStorage.setItem(STORED, code);
  document.documentElement.lang = code;
}

// A message, its {names} filled in.
export function t(key, values = {}) {
  return (messages[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// The message if there is one: for words that the gateway may add to.
export const known = (key) => messages[key];

// "1234.50", "USD" as a person reads it. Intl takes the decimal string exactly; a float would not hold every amount.
export function money(amount, asset) {
  const digits = (amount.split(".")[1] ?? "").length;
  const shown = new Intl.NumberFormat(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(amount);
  return `${shown}\u00a0${asset}`;
}

export const time = (iso) => written(iso, { dateStyle: "medium", timeStyle: "short" });

// "2027-12-31" as a person reads it.
export const day = (date) => written(`${date}T12:00`, { dateStyle: "medium" });

const written = (iso, style) => (iso ? new Intl.DateTimeFormat(locale(), style).format(new Date(iso)) : "–");

// What a person typed as an amount, as a decimal string; null when it is none. A lone separator is the decimal one, unless
// exactly three digits follow it and the language groups digits with it.
export function decimal(typed) {
  const plain = typed.replace(/[\s'’]/g, "");
  const parts = new Intl.NumberFormat(locale()).formatToParts(1234567.5);
  const sign = (type) => `\\${parts.find((part) => part.type === type)?.value.trim() || "_"}`;
  const grouped = new RegExp(`^\\d{1,3}(?:${sign("group")}\\d{3})+(?:${sign("decimal")}\\d+)?$`);
  if (grouped.test(plain)) return plain.replace(new RegExp(sign("group"), "g"), "").replace(",", ".");
  return /^\d+(?:[.,]\d+)?$/.test(plain) ? plain.replace(",", ".") : null;
}
