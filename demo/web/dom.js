// Elements from data. Data only ever becomes text or an attribute's value, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function el(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function svg(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Only touches the page when something changed, so that selections and screen readers are left in peace.
export function text(element, value) {
  const string = String(value);
  if (element.textContent !== string) element.textContent = string;
}

export function title(element, value) {
  if (element.title !== value) element.title = value;
}

const children = new WeakMap();

// Makes `parent`'s children match `items`, keeping the element of an item whose key stays.
// `make(item)` returns {root, ...parts}; `update(parts, item)` fills it.
export function keyed(parent, items, keyOf, make, update) {
  const before = children.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (after.has(key)) continue;
    const parts = before.get(key) ?? make(item);
    update(parts, item);
    after.set(key, parts);
  }
  for (const [key, parts] of before) if (!after.has(key)) parts.root.remove();
  let position = parent.firstChild;
  for (const { root } of after.values()) {
    if (root === position) position = position.nextSibling;
    else parent.insertBefore(root, position);
  }
  children.set(parent, after);
}

// A table row: {root, cells}. `columns` are class names, one per cell; the first cell heads the row.
export function row(columns) {
  const cells = columns.map((className, i) => el(i === 0 ? "th" : "td", className));
  cells[0].scope = "row";
  return { root: el("tr", "", ...cells), cells };
}

// State as a sign and a word, so that it does not depend on colour.
const SIGNS = { up: "●", down: "✕", unknown: "?", unseen: "○" };
const WORDS = { up: "up", down: "down", unknown: "unknown", unseen: "not heard yet" };

export function showState(element, state) {
  element.className = `state ${state}`;
  text(element, SIGNS[state]);
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", WORDS[state]);
  title(element, WORDS[state]);
}

export const stateWord = (state) => `${SIGNS[state]} ${WORDS[state]}`;
