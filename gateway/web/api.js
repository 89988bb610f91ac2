// Calls to the gateway, in the name of who is logged in.
//
// The access token lives in memory only. The refresh token is kept in the browser's storage, so that links in mails and on
// screens open in a new tab without a password; each is good once, hence the lock: tabs trade it one after the other.

const STORED = "refresh_token";
const STALE = new Set(["token_expired", "session_ended", "invalid_token"]);
let access = null; // {token, until}
let whenOut = () => {};

// What the gateway, or the way to it, says is wrong: `code` is for the messages.
export class Problem extends Error {
  constructor(code, status = 0, fields = [], errors = []) {
    super(code);
    Object.assign(this, { code, status, fields, errors });
  }
}

export const loggedIn = () => localStorage.getItem(STORED) !== null;

export function onLoggedOut(act) {
  whenOut = act;
  window.addEventListener("storage", (event) => event.key === STORED && event.newValue === null && forget());
}

function forget() {
  access = null;
  localStorage.removeItem(STORED);
  whenOut();
}

function keep(session) {
  access = { token: session.access_token, until: Date.now() + (session.expires_in - 10) * 1000 };
  localStorage.setItem(STORED, session.refresh_token);
}

// `code`: of the second factor, if the account has one.
export const logIn = (email, password, code) => logInWith("/v1/auth/login", { email, password, ...(code && { code }) });

export const logInWith = async (path, proof) => keep(await call("POST", path, proof, { anonymous: true }));

export async function logOut() {
  const refresh_token = localStorage.getItem(STORED);
  forget();
  await call("POST", "/v1/auth/logout", { refresh_token }, { anonymous: true });
}

const traded = async () => {
  if (access && access.until > Date.now()) return access.token;
  const refresh_token = localStorage.getItem(STORED);
  if (refresh_token === null) throw new Problem("not_authenticated", 401);
  try {
    keep(await call("POST", "/v1/auth/refresh", { refresh_token }, { anonymous: true }));
  } catch (problem) {
    if (problem.status === 401) forget();
    throw problem;
  }
  return access.token;
};

const token = () => (navigator.locks ? navigator.locks.request("session", traded) : traded());

// The response of a request that went well. Raises Problem.
export async function request(method, path, options = {}) {
  const { body, file, headers = {}, anonymous = false, signal, again = false } = options;
  const bearer = anonymous ? null : await token();
  const sent = {
    ...headers,
    ...(bearer && { Authorization: `Bearer ${bearer}` }),
    ...((body || file) && { "Content-Type": file ? "text/csv" : "application/json" }),
  };
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: file ?? (body && JSON.stringify(body)), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem("offline");
  }
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (!STALE.has(problem.code) || anonymous || again) throw problem;
  if (access?.token === bearer) access = null; // it ended early, with its session perhaps: the refresh token tells
  return request(method, path, { ...options, again: true });
}

async function problemOf(response) {
  const said = await response.json().catch(() => ({}));
  const errors = said.errors ?? [];
  const fields = errors.flatMap((error) => error.pointer.split("/").reverse()).filter(Boolean);
  return new Problem(said.code ?? (response.status === 404 ? "not_found" : "internal_error"), response.status, fields, errors);
}

export async function call(method, path, body, options = {}) {
  const response = await request(method, path, { ...options, body });
  return response.status === 204 || (response.status === 202 && response.headers.get("content-length") === "0")
    ? null
    : response.json();
}

export const get = (path, parameters = {}) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return call("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path);
};

export const post = (path, body = {}, options = {}) => call("POST", path, body, options);

// Asked again with the same key, it is made once.
export const make = (path, body, key) => call("POST", path, body, { headers: { "Idempotency-Key": key } });

// A file as it is.
export const upload = (path, file, key) => call("POST", path, undefined, { file, headers: { "Idempotency-Key": key } });

// What moves money: the same, and the answer waits a little for the end.
export const order = (path, body, key) => make(`${path}?wait=5`, body, key);

export const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// A file that only who is logged in may have.
export const download = async (path, name) => save(await (await request("GET", path)).blob(), name);

// Hands a file to the person.
export function save(content, name) {
  const address = URL.createObjectURL(content);
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
