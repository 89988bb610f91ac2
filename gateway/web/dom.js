// Elements from data. Data only ever becomes text or an attribute's value, never markup.

export const byId = (id) => document.getElementById(id);

// `attributes`: false, null and undefined are left out, true is there without a value, on... is an event's handler.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

export const button = (label, onclick, className = "plain") => el("button", { type: "button", class: className, onclick }, label);

// Replaces what is in `parent` when it differs: selections, focus and screen readers are left in peace otherwise.
export function put(parent, ...children) {
  const next = parent.cloneNode(false);
  next.append(...children.flat().filter((child) => child != null && child !== false));
  if (parent.isEqualNode(next)) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  parent.replaceChildren(...next.childNodes);
  if (focused && !focused.isConnected)
    [...parent.querySelectorAll(focused.tagName)].find((one) => one.isEqualNode(focused))?.focus();
}

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const HEARD = 10_000; // ms in which to read it
let unsay = 0;

// What happened beside what somebody looks at, or has read to them.
export function say(words) {
  clearTimeout(unsay);
  text(byId("said"), words);
  unsay = setTimeout(() => text(byId("said"), ""), HEARD);
}
