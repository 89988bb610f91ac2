// Passkeys: what this browser and the gateway tell each other. Bytes travel as base64url, as WebAuthn's JSON has them.

import { gateway } from "./account.js";
import { Problem, logInWith, post } from "./api.js";

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");

// Where passkeys work: {here} for this page and browser, {origin} where another address of the same gateway has them.
export async function passkeyPlace() {
  const { passkeys: origin } = await gateway();
  return { here: origin === location.origin && "PublicKeyCredential" in window, origin: origin !== location.origin && origin };
}

// `proof`: password and, with a second factor, its code.
export async function addPasskey(name, proof) {
  const options = await post("/v1/me/passkeys/options", proof);
  const made = await asked("create", {
    ...options,
    challenge: bytes(options.challenge),
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: options.excludeCredentials.map((one) => ({ ...one, id: bytes(one.id) })),
  });
  const { clientDataJSON, attestationObject } = made.response;
  return post("/v1/me/passkeys", { name, credential: answer(made, { clientDataJSON, attestationObject }) });
}

export async function logInWithPasskey() {
  const options = await post("/v1/auth/passkey/options", {}, { anonymous: true });
  const signed = await asked("get", { ...options, challenge: bytes(options.challenge) });
  const { clientDataJSON, authenticatorData, signature, userHandle } = signed.response;
  await logInWith("/v1/auth/passkey", { credential: answer(signed, { clientDataJSON, authenticatorData, signature, userHandle }) });
}

// The person's answer. Raises Problem.
async function asked(deed, publicKey) {
  try {
    return await navigator.credentials[deed]({ publicKey });
  } catch (error) {
    throw new Problem(error.name === "InvalidStateError" ? "passkey_taken" : "passkey_canceled");
  }
}

function answer(credential, response) {
  const coded = Object.fromEntries(Object.entries(response).map(([name, value]) => [name, text(value)]));
  return { id: credential.id, rawId: credential.id, type: credential.type, response: coded };
}
