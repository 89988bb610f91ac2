// The page around the views: which one is shown, the menu, the language, and who is told when something happened.

import { forgetMe } from "./account.js";
import { Problem, logOut, loggedIn, onLoggedOut } from "./api.js";
import { byId, el, say, text } from "./dom.js";
import { wordsOf } from "./form.js";
import { LANGUAGES, known, language, money, preferred, speak, t } from "./language.js";
import { follow, wakeUp } from "./live.js";
import { heading, note, showBalances } from "./parts.js";
import { MENU, VIEWS } from "./views.js";

let leave = new AbortController();
let watchers = [];
let returnTo = null;
let shown = false; // a view, since the page was opened: then the next one takes the focus

// {name, id, query} of an address like #/receipt/ab12?x=y.
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  return { name: name || "overview", id, query: new URLSearchParams(query) };
}

export const go = (to) => {
  if (location.hash === `#/${to}`) show();
  else location.hash = `#/${to}`;
};

async function show() {
  let { name, id, query } = place();
  if (!(name in VIEWS)) name = "overview";
  if (!VIEWS[name].open && !loggedIn()) {
    returnTo = location.hash.replace(/^#\/?/, "");
    name = "login";
  }
  leave.abort();
  const here = (leave = new AbortController());
  const watching = [];
  showFrame(name);
  text(byId("alert"), "");
  let content;
  try {
    const watch = (look) => watching.push(oneAtATime(look));
    const after = (to) => {
      wakeUp();
      go(returnTo && to === "" ? takeReturn() : to);
    };
    content = await VIEWS[name].view({ id, query, watch, go: after, again: show });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    content = [heading(t(`menu.${name}`)), note(wordsOf(error), "bad")];
  }
  if (here.signal.aborted) return;
  watchers = watching;
  byId("main").replaceChildren(...[content].flat());
  const title = byId("main").querySelector("h1");
  document.title = `${title.textContent} – shardpay`;
  if (shown) title.focus({ preventScroll: true });
  shown = true;
  scrollTo(0, 0);
}

function takeReturn() {
  const to = returnTo;
  returnTo = null;
  return to;
}

function showFrame(name) {
  const inside = loggedIn();
  for (const id of ["menu", "menu-button", "log-out"]) byId(id).hidden = !inside;
  closeMenu();
  byId("menu").setAttribute("aria-label", t("frame.menu"));
  byId("menu").replaceChildren(
    ...MENU.map((one) =>
      el("a", { href: `#/${one === "overview" ? "" : one}`, "aria-current": one === (VIEWS[name].under ?? name) && "page" }, t(`menu.${one}`)),
    ),
  );
  text(byId("skip"), t("frame.skip"));
  text(byId("menu-button"), t("frame.menu"));
  text(byId("log-out"), t("frame.log_out"));
  const options = Object.entries(LANGUAGES).map(([code, words]) =>
    el("option", { value: code, lang: code, selected: code === language }, words),
  );
  byId("language").replaceChildren(...options);
  byId("language").setAttribute("aria-label", t("field.language"));
}

const closeMenu = () => byId("menu-button").setAttribute("aria-expanded", "false");

function tell(event) {
  if (event !== null && known(`event.${event.type}`)) {
    const { amount = "", asset = "" } = event.data;
    say(t(`event.${event.type}`, { sum: amount && money(amount, asset) }));
  }
  for (const look of [...watchers, showHeld])
    Promise.resolve(look(event)).catch((error) => error instanceof Problem || console.error(error));
}

// However fast things happen: while it is done once, the rest waits, and is then done once for all of them.
function oneAtATime(look) {
  let [busy, waiting] = [false, false];
  return async (event) => {
    waiting = true;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        waiting = false;
        await look(event);
      }
    } finally {
      busy = false;
    }
  };
}

const showHeld = oneAtATime(showBalances);

function showLive(state) {
  byId("live").className = `live ${state}`;
  text(byId("live"), state === "off" ? "" : t(`frame.${state}`));
}

async function start() {
  await speak(preferred());
  byId("skip").addEventListener("click", () => byId("main").querySelector("h1")?.focus());
  byId("menu-button").addEventListener("click", () => {
    const open = byId("menu-button").getAttribute("aria-expanded") === "true";
    byId("menu-button").setAttribute("aria-expanded", String(!open));
  });
  byId("log-out").addEventListener("click", () => logOut().catch(() => {}));
  byId("language").addEventListener("change", async (event) => {
    await speak(event.target.value);
    await show();
    byId("language").focus();
  });
  onLoggedOut(() => {
    forgetMe();
    say("");
    returnTo = null;
    go("login");
  });
  window.addEventListener("hashchange", show);
  window.addEventListener("click", () => text(byId("alert"), ""));
  window.addEventListener("unhandledrejection", (event) => {
    if (!(event.reason instanceof Problem)) return; // what a button did not achieve
    event.preventDefault();
    text(byId("alert"), wordsOf(event.reason));
  });
  follow(tell, showLive);
  await show();
}

start();
