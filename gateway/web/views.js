// Every view, by the first part of its address, and which of them the menu leads to.

import { buy } from "./views/buy.js";
import { cashOut } from "./views/cash_out.js";
import { developer } from "./views/developer.js";
import { exchange } from "./views/exchange.js";
import { history } from "./views/history.js";
import { outbox } from "./views/outbox.js";
import { overview } from "./views/overview.js";
import { paymentFiles } from "./views/payment_files.js";
import { pay } from "./views/pay.js";
import { receipt } from "./views/receipt.js";
import { request } from "./views/request.js";
import { scheduled } from "./views/scheduled.js";
import { send } from "./views/send.js";
import { settings } from "./views/settings.js";
import { forgot, login, reset, signup, verify } from "./views/sign_in.js";
import { wallets } from "./views/wallets.js";

// `open`: also for who is not logged in. `under`: what the menu calls it.
export const VIEWS = {
  overview: { view: overview },
  buy: { view: buy },
  send: { view: send },
  scheduled: { view: scheduled, under: "send" },
  files: { view: paymentFiles, under: "send" },
  request: { view: request },
  exchange: { view: exchange },
  cash_out: { view: cashOut },
  history: { view: history },
  wallets: { view: wallets },
  settings: { view: settings },
  developer: { view: developer },
  pay: { view: pay },
  receipt: { view: receipt },
  login: { view: login, open: true },
  signup: { view: signup, open: true },
  verify: { view: verify, open: true },
  forgot: { view: forgot, open: true },
  reset: { view: reset, open: true },
  outbox: { view: outbox, open: true },
};

export const MENU = ["overview", "buy", "send", "request", "exchange", "cash_out", "history", "wallets", "settings", "developer"];
