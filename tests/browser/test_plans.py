"""Payments from files and at times to come, as people make them; and what they are written to about."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Inside
from tests.browser.visitor import DESKTOP, PHONE, Visitor

WAGES = "to;asset;amount;memo\r\nbob@example.org;USD;12.50;November\r\nzoe@example.org;USD;7.00;\r\n"


def give_file(ann: Visitor, name: str, text: str) -> None:
    ann.page.set_input_files("input[type=file]", {"name": name, "mimeType": "text/csv", "buffer": text.encode()})
    ann.press("files.check")


def test_a_file_of_payments_is_checked_looked_at_and_paid(inside: Inside) -> None:
    ann, person = inside(DESKTOP, USD="20.00")
    ann.go("send")
    ann.follow("tab.files")
    ann.at("files")
    give_file(ann, "wages.csv", WAGES.replace("7.00", "7.001").replace("bob@", "bob"))
    ann.sees(ann.t("error.invalid_payment_file"))
    faults = ann.page.locator(".faults li")
    expect(faults).to_have_count(2)
    expect(faults.last).to_have_text(f"{ann.t('files.line', line='3')}, amount: {ann.t('error.invalid_amount')}")
    ann.looks_right("payment-file-faults")
    give_file(ann, "wages.csv", WAGES)
    ann.sees(ann.t("status.checked"))
    expect(ann.page.locator(".faults")).to_have_count(0)
    ann.sees("19.50\u00a0USD")
    ann.looks_right("payment-file")
    ann.press("files.pay")
    expect(ann.page.get_by_role("dialog")).to_contain_text("19.50\u00a0USD")
    ann.confirm("files.pay")
    ann.sees(ann.t("files.so_far", paid="2", total="2", failed="0"))
    ann.sees(ann.t("status.completed"))
    ann.looks_right("payment-file-paid")
    with ann.page.expect_download() as download:
        ann.press("files.result")
    assert download.value.path().read_bytes().count(b",paid,") == 2
    ann.go("send")
    ann.follow("tab.files")
    expect(ann.page.locator(".card")).to_have_count(1)
    (wallet,) = person.get("/v1/wallets").json()["items"]
    assert person.balance(wallet) == ("0.50", "0.00")


def test_a_payment_is_scheduled_paused_and_stopped_and_mails_are_chosen(inside: Inside) -> None:
    ann, _ = inside(PHONE, USD="5.00")
    ann.go("send")
    ann.follow("tab.scheduled")
    ann.at("scheduled")
    ann.fill("field.to", "bob@example.org")
    ann.fill("field.amount", "2,5")
    ann.page.get_by_label(ann.t("scheduled.rhythm"), exact=True).select_option("monthly 3")
    ann.page.get_by_label(ann.t("scheduled.ends"), exact=True).select_option("count")
    ann.press("scheduled.make")
    ann.sees(ann.t("error.required"))
    ann.fill("scheduled.count", "4")
    ann.looks_right("scheduling")
    ann.press("scheduled.make")
    expect(ann.page.get_by_role("dialog")).to_contain_text(ann.t("scheduled.months", n="3"))
    ann.confirm("scheduled.make")
    card = ann.page.locator(".card")
    expect(card).to_contain_text("2,50\u00a0USD")
    expect(card).to_contain_text(f"{ann.t('scheduled.months', n='3')}, {ann.t('scheduled.times', n='4')}")
    for press, state in (("pause", "paused"), ("resume", "active")):
        ann.press(f"scheduled.{press}")
        expect(card).to_contain_text(ann.t(f"status.{state}"))
    ann.looks_right("scheduled")
    ann.press("scheduled.stop")
    ann.confirm("scheduled.stop")
    expect(card).to_contain_text(ann.t("status.canceled"))
    ann.go("settings")
    paid = ann.page.get_by_label(ann.t("notify.transfer.received"), exact=True)
    expect(paid).not_to_be_checked()
    paid.check()
    ann.page.locator("form", has=paid).get_by_role("button").click()
    expect(ann.page.locator("#said")).to_have_text(re.compile(ann.t("said.saved")))
    ann.page.reload()
    expect(paid).to_be_checked()
