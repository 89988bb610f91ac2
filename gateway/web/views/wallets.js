// Wallets: addresses to be paid at, names, new ones.

import { nameOf, wallets as all } from "../account.js";
import { call, post, save } from "../api.js";
import { button, el, say } from "../dom.js";
import { field, form, input } from "../form.js";
import { money, t } from "../language.js";
import { balancesOf, copyable, facts, heading, panel } from "../parts.js";

export async function wallets({ again }) {
  const list = el(
    "div",
    {},
    (await all()).map((wallet) => shown(wallet, again)),
  );
  const label = field(t("field.label"), input("label", { maxlength: 100 }));
  const make = form([label], t("wallets.make"), async (values) => {
    await post("/v1/wallets", values);
    say(t("wallets.made"));
    await again();
  });
  return [heading(t("menu.wallets")), list, panel(t("wallets.new"), make)];
}

// The key as a file that only the passphrase opens.
function exporting(wallet) {
  const password = field(t("field.password"), input("password", { type: "password", autocomplete: "current-password" }));
  const passphrase = field(
    t("wallets.passphrase"),
    input("passphrase", { type: "password", autocomplete: "new-password" }),
    t("hint.passphrase"),
  );
  const ask = form([password, passphrase], t("wallets.export"), async (values) => {
    const { encrypted_key } = await post(`/v1/wallets/${wallet.id}/export`, values);
    save(new Blob([encrypted_key]), `${nameOf(wallet)}.pem`);
    ask.reset();
  });
  return ask;
}

function shown(wallet, again) {
  const balances = balancesOf(wallet)
    .map(([code, held]) => money(held.available, code))
    .join(", ");
  const rows = [
    [t("wallets.balance"), balances || "0"],
    [t("wallets.shard"), String(wallet.shard)],
    [t("wallets.key"), t(wallet.custodial ? "wallets.kept" : "wallets.own")],
  ];
  const rename = form(
    [field(t("field.label"), input("label", { value: wallet.label, maxlength: 100 }))],
    t("action.save"),
    async (values) => {
      await call("PATCH", `/v1/wallets/${wallet.id}`, values);
      await again();
    },
  );
  const archive = button(t("wallets.archive"), async () => {
    await call("PATCH", `/v1/wallets/${wallet.id}`, { archived: true });
    await again();
  });
  const more = el(
    "details",
    {},
    el("summary", {}, t("wallets.change")),
    rename,
    wallet.custodial && exporting(wallet),
    balances === "" && archive,
  );
  return panel(nameOf(wallet), copyable(t("field.address"), wallet.address), facts(rows), more);
}
