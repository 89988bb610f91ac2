// A shop that is paid through a gateway, in Node and nothing else: `node shop.mjs account.json`; README.md says what that holds.
import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";

const ACCOUNT = process.argv[2];
const account = JSON.parse(readFileSync(ACCOUNT, "utf8"));
const PRICES = { tea: "4.50", cup: "12.00" };
const ASSET = "USD";
const FIVE_MINUTES = 300;
const LARGEST_EVENT = 65536;

async function ask(method, path, body, headers = {}) {
  const signal = AbortSignal.timeout(20_000);
  headers = { authorization: `Bearer ${account.key}`, "content-type": "application/json", ...headers };
  const answer = await fetch(`${account.gateway}/v1${path}`, { method, headers, signal, body: body && JSON.stringify(body) });
  if (!answer.ok) throw Object.assign(new Error(`${path}: ${answer.status} ${await answer.text()}`), { status: answer.status });
  return answer.json();
}

// An order is a payment intent whose `reference` is the order's number; it is paid when its proof lies in the folder.
async function order(item) {
  const number = randomUUID();
  const wanted = { wallet_id: account.wallet, asset: ASSET, amount: PRICES[item], description: item, reference: number };
  wanted.success_url = wanted.cancel_url = `${account.url}/orders/${number}`;
  return ask("POST", "/payment-intents", wanted, { "idempotency-key": number });
}

const proofOf = (number) => `${account.folder}/${number}.json`;
const units = (amount) => BigInt(amount.replace(".", "")); // amounts of an asset have all its decimals

// Believes the gateway's word only with the proof of the transfer: it must say that our own address was paid the amount.
async function paid(intent) {
  const proof = await ask("GET", `/transactions/${intent.transfer_id}/proof`);
  const ours = proof.claim.legs.filter((leg) => leg.action === "pay" && leg.payee === address && leg.asset === ASSET);
  const sum = ours.reduce((total, leg) => total + units(leg.amount), 0n);
  if (proof.claim.status !== "committed" || sum < units(intent.amount)) throw new Error(`not paid: ${intent.reference}`);
  writeFileSync(proofOf(intent.reference) + ".part", JSON.stringify(proof));
  renameSync(proofOf(intent.reference) + ".part", proofOf(intent.reference));
}

function signed(header, body) {
  const parts = (header ?? "").split(",").map((part) => part.split("="));
  const time = parts.find(([name]) => name === "t")?.[1];
  if (!/^\d+$/.test(time ?? "") || Math.abs(Date.now() / 1000 - Number(time)) > FIVE_MINUTES) return false;
  const right = createHmac("sha256", account.secret).update(`${time}.`).update(body).digest();
  const given = parts.filter(([name]) => name === "v1").map(([, value]) => Buffer.from(value ?? "", "hex"));
  return given.some((one) => one.length === right.length && timingSafeEqual(one, right)); // two after a rotation
}

async function read(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    if ((size += piece.length) > LARGEST_EVENT) throw Object.assign(new Error("too large"), { status: 413 });
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function webhook(request) {
  const body = await read(request);
  if (!signed(request.headers["shardpay-signature"], body)) return [400, "not signed by the gateway"];
  const { type, data } = JSON.parse(body);
  if (type === "payment_intent.succeeded" && !existsSync(proofOf(data.reference))) await paid(data);
  return [200, "thank you"]; // an event that comes twice finds its proof here
}

async function answer(request) {
  const [, what, name] = new URL(request.url, account.url).pathname.split("/");
  if (request.method === "POST" && what === "webhook") return webhook(request);
  if (request.method === "POST" && what === "buy" && Object.hasOwn(PRICES, name)) {
    const intent = await order(name);
    return [201, JSON.stringify({ order: intent.reference, pay_here: intent.checkout_url })];
  }
  if (request.method === "GET" && what === "orders" && /^[0-9a-f-]{36}$/.test(name ?? "")) {
    const found = (await ask("GET", `/payment-intents?reference=${name}`)).items[0];
    return found ? [200, JSON.stringify({ status: found.status, paid: existsSync(proofOf(name)) })] : [404, "no such order"];
  }
  return [404, "POST /buy/tea, POST /buy/cup, GET /orders/NUMBER"];
}

mkdirSync(account.folder, { recursive: true });
if (!account.secret) { // the first start: the secret is shown this once
  const endpoint = { url: `${account.url}/webhook`, events: ["payment_intent.succeeded"] };
  account.secret = (await ask("POST", "/webhook-endpoints", endpoint)).secret;
  chmodSync(ACCOUNT, 0o600);
  writeFileSync(ACCOUNT, JSON.stringify(account));
}
const { address } = await ask("GET", `/wallets/${account.wallet}`);
createServer((request, response) => answer(request)
  .catch((problem) => (console.error(problem.message), [problem.status === 413 ? 413 : 503, "not now"])) // the webhook comes again
  .then(([status, text]) => response.writeHead(status).end(text))
).listen(account.port, "127.0.0.1", () => console.log(`shop: ${account.url}`));
