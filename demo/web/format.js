// Numbers and times as a person reads them.

const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const NONE = "–";

export const count = (value) => (value == null ? NONE : integer.format(value));

export const rate = (value) => (value == null ? NONE : (value >= 100 ? integer : tenths).format(value));

export const percent = (value) => `${value >= 10 ? Math.round(value) : tenths.format(value)} %`;

export const milliseconds = (value) => (value == null ? NONE : `${(value >= 100 ? integer : tenths).format(value)} ms`);

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? integer.format(value) : tenths.format(value)} ${units[unit]}`;
}

export function age(ms) {
  if (ms < 3000) return "now";
  if (ms < 120_000) return `${Math.round(ms / 1000)} s ago`;
  return `${Math.round(ms / 60_000)} min ago`;
}

// A length of time: "42 s", "12 min", "3.5 h", "2.1 d".
export function duration(ms) {
  if (ms < 120_000) return `${Math.max(0, Math.round(ms / 1000))} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return ms < 172_800_000 ? `${tenths.format(ms / 3_600_000)} h` : `${tenths.format(ms / 86_400_000)} d`;
}

export const time = (ms) => clock.format(new Date(ms));

export const byName = (a, b) => a.localeCompare(b, "en", { numeric: true });

// A decimal string ("1234567.50") with its thousands marked. Never through a float: amounts may exceed one.
export function amount(text) {
  const [whole, fraction] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}
