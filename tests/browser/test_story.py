"""From signing up to cashing out, through the example shop: at a desk in English, and on a phone in German."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.visitor import DESKTOP, PASSWORD, PHONE, Device, Visitor
from tests.gateway.world import World
from tests.processes import ProgramProcess

IBAN = "DE89 3704 0044 0532 0130 00"


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=lambda device: device.name)
def test_sign_up_verify_buy_pay_the_shop_get_a_refund_cash_out(
    visitor: Callable[[Device], Visitor], world: World, shop: ProgramProcess, device: Device
) -> None:
    ann = visitor(device)
    sign_up(ann, f"ann-{device.name}@example.org")
    verify(ann)
    buy(ann, ann.number("100.00"))
    pay_the_shop(ann, shop)
    cash_out(ann, ann.number("100.00"))


def sign_up(ann: Visitor, email: str) -> None:
    ann.open()
    ann.at("login")
    ann.looks_right("login")
    ann.follow("login.new")
    ann.fill("field.name", "Ann")
    ann.fill("field.email", email)
    ann.fill("field.password", "password")
    ann.press("menu.signup")
    ann.sees(ann.t("error.weak_password"))
    ann.looks_right("signup")
    ann.fill("field.password", PASSWORD)
    ann.press("menu.signup")
    ann.sees(ann.t("history.none"))


def verify(ann: Visitor) -> None:
    ann.follow("outbox.link")
    ann.at("outbox")
    ann.looks_right("outbox")
    ann.page.locator(".mail a").first.click()
    ann.sees(ann.t("verify.done"))
    ann.looks_right("verify")
    ann.follow("verify.onward")
    expect(ann.page.locator(".purse")).to_have_count(1)
    expect(ann.page.get_by_role("link", name=ann.t("outbox.link"))).to_have_count(0)


def buy(ann: Visitor, amount: str) -> None:
    ann.go("buy")
    ann.fill("field.amount", amount)
    ann.fill("field.card", "4000 0000 0000 0002")
    ann.fill("field.expiry", "12/40")
    ann.fill("field.cvc", "123")
    ann.press("buy.pay")
    ann.sees(ann.t("decline.card_declined"))
    ann.fill("field.card", "4242 4242 4242 4242")
    ann.fill("field.expiry", "12/40")
    ann.fill("field.cvc", "123")
    ann.press("buy.pay")
    ann.sees(ann.t("status.completed"))
    ann.looks_right("buy")


def pay_the_shop(ann: Visitor, shop: ProgramProcess) -> None:
    page = ann.page
    page.goto(shop.url)
    page.get_by_label("Mug").fill("1")
    ann.looks_right("shop")
    page.get_by_role("button", name="To the basket").click()
    page.get_by_role("button", name="Pay with shardpay").click()
    ann.at("pay")
    ann.sees("Corner Shop")
    ann.looks_right("pay")
    ann.press("pay.now", sum=f"{ann.number('14.00')}\u00a0USD")
    page.wait_for_url(f"{shop.url}/orders/*")
    expect(page.get_by_role("status")).to_contain_text("Paid, proven by block")
    ann.looks_right("shop-paid")
    page.get_by_role("button", name="Refund").click()
    expect(page.get_by_role("status")).to_contain_text("Refunded")
    ann.open()
    ann.sees(f"{ann.number('100.00')}\u00a0USD")
    ann.looks_right("overview")


def cash_out(ann: Visitor, amount: str) -> None:
    ann.go("cash_out")
    ann.fill("field.amount", amount)
    ann.fill("field.iban", "DE89 3704 0044 0532 0130 01")
    ann.press("menu.cash_out")
    ann.confirm("menu.cash_out")
    ann.sees(ann.t("error.invalid_iban"))
    ann.fill("field.iban", IBAN)
    ann.press("menu.cash_out")
    ann.confirm("menu.cash_out")
    ann.sees(ann.t("status.paid"))
    ann.looks_right("cash_out")
    ann.go("history")
    for kind in ("purchase", "checkout", "refund", "payout"):
        ann.sees(ann.t(f"kind.{kind}"))
    ann.looks_right("history")
    for form, content in (("pdf", b"%PDF-"), ("csv", b"payout,USD,,100.00")):
        ann.page.get_by_label(ann.t("history.format"), exact=True).select_option(form)
        with ann.page.expect_download() as download:
            ann.press("history.statement")
        assert content in download.value.path().read_bytes()
