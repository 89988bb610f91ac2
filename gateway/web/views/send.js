// Paying a person: by e-mail, by address, or by what a QR code said.

import { assets, wallets } from "../account.js";
import { order } from "../api.js";
import { el } from "../dom.js";
import { field, form, input } from "../form.js";
import { money, t } from "../language.js";
import { amountFields, confirmed, heading, panel, tabs, walletField } from "../parts.js";
import { scanButton } from "../scan.js";

export async function send({ query, go }) {
  const [held, all] = await Promise.all([wallets(), assets()]);
  const to = input("to", { value: query.get("to") ?? "", maxlength: 254, spellcheck: "false", autocapitalize: "none" });
  to.addEventListener("change", () => requested(to.value) && go(requested(to.value)));
  const amounts = amountFields(all, { amount: query.get("amount") ?? "", asset: query.get("asset") });
  const memo = field(t("field.memo"), input("memo", { required: false, maxlength: 140 }), t("hint.memo"));
  const whom = el(
    "div",
    { class: "beside end" },
    field(t("field.to"), to, t("hint.to")),
    scanButton((text) => {
      to.value = text;
      to.dispatchEvent(new Event("change"));
    }),
  );
  const pay = form(
    [whom, amounts, walletField(held, t("field.from"), "from_wallet"), memo],
    t("menu.send"),
    async (values, key) => {
      const rows = [
        [t("field.to"), values.to],
        [t("field.amount"), money(values.amount, values.asset)],
        [t("field.memo"), values.memo],
      ];
      if (!(await confirmed(t("send.confirm"), rows, t("menu.send")))) return;
      const { id } = await order("/v1/transfers", values, key);
      go(`receipt/${id}`);
    },
  );
  return [heading(t("menu.send")), tabs("send"), panel(null, pay)];
}

// Where a link to a request or an offer leads to on this page, if the text is one.
const requested = (text) => text.match(/#\/((?:pay|exchange|send)[/?].+)$/)?.[1];
