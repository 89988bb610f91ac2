// What a person is told by mail, in the settings.

import { call, get } from "../api.js";
import { el, say } from "../dom.js";
import { checkbox, form } from "../form.js";
import { t } from "../language.js";

const TYPES = [
  "transfer.received",
  "scheduled_payment.retrying",
  "scheduled_payment.failed",
  "payment_file.completed",
  "payout.returned",
  "purchase.disputed",
];

export async function notifications() {
  const chosen = await get("/v1/me/notifications");
  const boxes = TYPES.map((type) => checkbox(type, t(`notify.${type}`), chosen.events.includes(type)));
  const types = el("fieldset", {}, el("legend", {}, t("settings.notify_lead")), boxes);
  const amounts = checkbox("amounts", t("settings.notify_amounts"), chosen.amounts);
  return form([types, amounts], t("action.save"), async (values) => {
    const events = TYPES.filter((type) => values[type]);
    await call("PUT", "/v1/me/notifications", { events, amounts: Boolean(values.amounts) });
    say(t("said.saved"));
  });
}
