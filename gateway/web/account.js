// What most views need to know: whose page it is, which wallets and assets there are.

import { get, post } from "./api.js";
import { t } from "./language.js";

let place = null;
let profile = null;
let first = null;

// Of the gateway: {devnet, shop, passkeys}.
export const gateway = async () => (place ??= await (await fetch("/web/place.json")).json());

export const assets = async () => (await get("/v1/network")).assets;

export const me = async (again = false) => (profile = again || profile === null ? await get("/v1/me") : profile);

export function forgetMe() {
  profile = null;
  first = null;
}

// With their balances, oldest first; whoever has none gets one.
export async function wallets() {
  let { items } = await get("/v1/wallets");
  if (items.length === 0) items = [await (first ??= post("/v1/wallets", { label: t("wallets.first") }))];
  return Promise.all(items.filter((one) => !one.archived).map((one) => get(`/v1/wallets/${one.id}`)));
}

export const nameOf = (wallet) => wallet.label || short(wallet.address);

export const short = (address) => (address.length > 24 ? `${address.slice(0, 10)}…${address.slice(-6)}` : address);
