"""What people do with each other, with shops of their own and with their accounts; what goes wrong is said in their words."""

import re
from typing import Any

import pyotp
from playwright.sync_api import Route, expect

from node.protocol.address import decode_address
from node.protocol.transaction import Leg
from tests.browser.conftest import Inside, Make
from tests.browser.visitor import DESKTOP, PHONE, Visitor
from tests.gateway.test_second_factor import begun, confirm
from tests.gateway.world import World
from tests.person import PASSWORD, Person
from tests.waiting import until


def test_money_that_comes_is_shown_without_a_reload(inside: Inside, world: World) -> None:
    ann, person = inside(DESKTOP)
    expect(ann.page.locator("#live")).to_have_text(ann.t("frame.live"))
    bob = world.person()
    paid = bob.pay(bob.wallet(USD="9.00"), person.email, "7.50", memo="for lunch", wait=15)
    assert paid.json()["status"] == "committed"
    expect(ann.page.locator("#said")).to_have_text(ann.t("event.transfer.received"))
    expect(ann.page.locator(".purse")).to_contain_text("7.50\u00a0USD")
    ann.sees("for lunch")
    ann.go("wallets")
    ann.page.get_by_text(ann.t("wallets.change"), exact=True).click()
    ann.looks_right("wallets")
    ann.fill("field.password", PASSWORD)
    ann.fill("wallets.passphrase", "blue umbrellas at noon")
    with ann.page.expect_download() as download:
        ann.press("wallets.export")
    assert b"ENCRYPTED PRIVATE KEY" in download.value.path().read_bytes()


def test_a_request_is_paid_by_whoever_has_the_link(inside: Inside, visitor: Make, world: World) -> None:
    ann, _ = inside(DESKTOP)
    ann.go("request")
    ann.fill("field.amount", "12.5")
    ann.fill("field.description", "Tickets <b>for two</b>")
    ann.press("request.make")
    link = ann.page.get_by_label(ann.t("request.link"), exact=True).input_value()
    qr = ann.page.get_by_role("img", name=ann.t("request.qr"))
    until(lambda: qr.evaluate("image => image.naturalWidth") > 0, "the QR code")
    ann.looks_right("request")

    payer = world.person()
    payer.wallet(USD="20.00")
    bob = visitor(PHONE)
    bob.page.goto(link)
    bob.log_in(payer.email, PASSWORD)
    bob.at("pay")
    bob.sees("Tickets <b>for two</b>")
    bob.press("pay.now", sum="12,50\u00a0USD")
    bob.sees(bob.t("status.succeeded"))
    bob.follow("action.receipt")
    bob.sees(bob.t("status.committed"))
    bob.looks_right("receipt")
    with bob.page.expect_download() as download:
        bob.press("receipt.download")
    assert download.value.path().read_bytes().startswith(b"{")
    ann.sees(ann.t("status.succeeded"))


def test_an_exchange_offered_on_one_screen_is_accepted_on_another(inside: Inside, world: World) -> None:
    ann, _ = inside(DESKTOP, USD="10.00")
    bob, holder = inside(PHONE)
    give(world, holder, 50_000)
    ann.go("exchange")
    ann.fill("exchange.give", "4")
    ann.fill("exchange.want", "40,000")
    ann.press("exchange.make")
    link = ann.page.get_by_label(ann.t("exchange.link"), exact=True).input_value()
    ann.looks_right("exchange")
    bob.page.goto(link)
    bob.at("exchange")
    bob.sees("40.000\u00a0VND")
    bob.looks_right("offer")
    bob.press("exchange.accept")
    bob.sees(bob.t("status.settled"))
    bob.open()
    bob.sees("4,00\u00a0USD")
    bob.sees("10.000\u00a0VND")


def give(world: World, person: Person, units: int) -> None:
    """VND, which this gateway does not issue."""
    (wallet,) = person.get("/v1/wallets").json()["items"]
    issuer = world.network.chains.issuers["VND"]
    paid = Leg(world.network.chains.genesis.assets[1].issuer_address, decode_address(wallet["address"]), "VND", units)
    world.network.hand_in(
        world.network.chains.sign([issuer], paid, valid_until=world.network.chains.shards[0].head.time + 60_000)
    )
    until(lambda: person.balance(wallet, "VND")[0] == str(units), "the VND")


def test_what_is_sent_is_checked_shown_again_and_explained_when_refused(inside: Inside) -> None:
    ann, _ = inside(PHONE, USD="5.00")
    ann.go("send")
    ann.press("menu.send")
    to, amount = (ann.page.get_by_label(ann.t(label), exact=True) for label in ("field.to", "field.amount"))
    expect(to).to_be_focused()
    ann.sees(ann.t("error.required"))
    to.fill("spay1nonsense")
    amount.fill("1,2,3")
    ann.press("menu.send")
    expect(amount).to_be_focused()
    ann.sees(ann.t("error.invalid_amount"))
    amount.fill("5,01")
    ann.press("menu.send")
    expect(ann.page.get_by_role("dialog")).to_contain_text("5,01\u00a0USD")
    ann.confirm("menu.send")
    ann.sees(ann.t("error.invalid_address"))
    ann.looks_right("send")
    to.fill("somebody@example.org")
    ann.press("menu.send")
    ann.confirm("menu.send")
    ann.at("receipt")
    ann.sees(ann.t("status.rejected"))
    ann.sees(ann.t("error.insufficient_funds"))


def test_a_payment_sent_again_after_its_answer_was_lost_happens_once(inside: Inside) -> None:
    ann, person = inside(DESKTOP, USD="5.00")
    answers: list[dict[str, Any]] = []

    def lose_the_first(route: Route) -> None:
        if route.request.method == "POST" and not answers:
            answers.append(route.fetch().json())
            route.abort()
        else:
            route.continue_()

    ann.page.route("**/v1/transfers?*", lose_the_first)
    ann.go("send")
    ann.fill("field.to", "somebody@example.org")
    ann.fill("field.amount", "2")
    for outcome in ("error.offline", "status.committed"):
        ann.press("menu.send")
        ann.confirm("menu.send")
        ann.sees(ann.t(outcome))
    assert ann.page.url.endswith(answers[0]["id"])
    (wallet,) = person.get("/v1/wallets").json()["items"]
    assert person.balance(wallet) == ("3.00", "0.00")


def test_a_shop_of_ones_own_gets_a_key_and_webhooks(inside: Inside, world: World) -> None:
    ann, person = inside(DESKTOP, USD="5.00")
    person.verify()
    ann.go("developer")
    ann.fill("field.name", "till")
    ann.page.get_by_label(ann.t("scope.read")).check()
    ann.press("developer.make_key")
    key = ann.page.get_by_label(ann.t("developer.key_once"), exact=True).input_value()
    answer = world.gateway.http.get("/v1/wallets", headers={"Authorization": f"Bearer {key}"})
    assert len(answer.json()["items"]) == 1
    ann.fill("developer.url", "http://127.0.0.1:9/hook")
    ann.press("developer.make_endpoint")
    expect(ann.page.get_by_label(ann.t("developer.secret_once"), exact=True)).to_have_value(re.compile("^whsec_"))
    (wallet,) = person.get("/v1/wallets").json()["items"]
    assert person.pay(wallet, "somebody@example.org", "1.00", wait=15).json()["status"] == "committed"
    (endpoint,) = person.get("/v1/webhook-endpoints").json()["items"]
    until(lambda: person.get(f"/v1/webhook-endpoints/{endpoint['id']}/deliveries").json()["items"], "a delivery")
    ann.page.get_by_text(ann.t("developer.deliveries"), exact=True).click()
    ann.sees("transfer.committed")
    ann.looks_right("developer")
    ann.page.get_by_role("button", name=ann.t("developer.replay")).first.click()
    ann.press("developer.revoke")
    ann.confirm("developer.revoke")
    ann.sees(ann.t("developer.no_keys"))


def test_a_session_survives_a_reload_and_ends_in_all_tabs_at_once(inside: Inside) -> None:
    ann, person = inside(DESKTOP, USD="5.00")
    ann.page.reload()
    ann.sees("5.00\u00a0USD")
    other = ann.context.new_page()
    other.goto(f"{ann.url}/#/settings")
    expect(other.get_by_text(person.email, exact=True)).to_be_visible()
    ann.go("settings")
    ann.sees(ann.t("settings.passkeys_elsewhere"))
    ann.looks_right("settings")
    ann.press("frame.log_out")
    ann.at("login")
    expect(other.get_by_role("heading", level=1, name=ann.t("menu.login"))).to_be_visible()
    assert ann.page.evaluate("Object.keys(localStorage)") == ["language"]


def test_a_forgotten_password_is_replaced_by_mail(visitor: Make, world: World) -> None:
    person = world.person()
    ann = visitor(PHONE)
    ann.open()
    ann.follow("login.forgot")
    ann.at("forgot")
    ann.fill("field.email", person.email)
    ann.press("forgot.send")
    ann.sees(ann.t("forgot.sent"))
    ann.looks_right("forgot")
    ann.follow("outbox.link")
    mail = ann.page.locator(".panel", has_text=person.email).first
    mail.locator(".mail a").click()
    ann.at("reset")
    ann.looks_right("reset")
    ann.fill("field.password", "another good sentence for a wallet")
    ann.press("action.save")
    ann.log_in(person.email, PASSWORD)
    ann.sees(ann.t("error.wrong_credentials"))
    ann.log_in(person.email, "another good sentence for a wallet")
    expect(ann.page.locator(".purse")).to_have_count(1)


def test_a_second_factor_is_set_up_and_asked_for(inside: Inside) -> None:
    ann, person = inside(PHONE)
    ann.go("settings")
    second = ann.page.locator(".panel", has=ann.page.get_by_role("heading", name=ann.t("settings.second"), exact=True))
    ann.fill("field.password", PASSWORD, second)
    ann.press("settings.second_start")
    secret = ann.page.get_by_label(ann.t("settings.second_secret"), exact=True).input_value()
    ann.fill("field.code", pyotp.TOTP(secret).now())
    ann.press("action.confirm")
    ann.sees(ann.t("settings.second_codes"))
    recovery = second.locator("pre").inner_text().split()
    ann.looks_right("second_factor")
    log_out(ann)
    ann.log_in(person.email, PASSWORD)
    ann.sees(ann.t("error.code_required"))
    ann.fill("field.code", recovery[0])
    ann.press("menu.login")
    expect(ann.page.locator(".purse")).to_have_count(1)


def test_a_passkey_logs_in_without_password_and_code(visitor: Make, world: World) -> None:
    person = world.person()
    recovery = confirm(person, begun(person).now()).json()["recovery_codes"]
    ann = visitor(PHONE)
    ann.url = ann.url.replace("127.0.0.1", "localhost")  # browsers have passkeys for names
    phone = ann.passkeys()
    ann.open("settings")
    ann.log_in(person.email, PASSWORD)
    ann.fill("field.code", recovery[0])
    ann.press("menu.login")
    ann.at("settings")
    passkeys = ann.page.locator(".panel", has=ann.page.get_by_role("heading", name=ann.t("settings.passkeys"), exact=True))
    ann.fill("settings.passkey_name", "My <b>phone</b>", passkeys)
    ann.fill("field.password", PASSWORD, passkeys)
    ann.press("settings.passkey_add")
    ann.fill("field.code", recovery[1], passkeys)
    ann.press("settings.passkey_add")
    expect(ann.page.locator("#said")).to_have_text(ann.t("settings.passkey_added"))
    expect(passkeys).to_contain_text("My <b>phone</b>")
    ann.looks_right("passkeys")
    log_out(ann)
    phone(verified=False)
    ann.press("login.passkey")
    expect(ann.page.get_by_role("alert").first).to_have_text(ann.t("error.passkey_canceled"))
    phone(verified=True)
    ann.looks_right("login-passkey")
    ann.press("login.passkey")
    expect(ann.page.locator(".purse")).to_have_count(1)
    ann.go("settings")
    passkeys.get_by_role("button", name=ann.t("action.remove")).click()
    ann.confirm("action.remove")
    expect(passkeys).to_contain_text(ann.t("settings.passkeys_none"))
    log_out(ann)
    ann.press("login.passkey")
    expect(ann.page.get_by_role("alert").first).to_have_text(ann.t("error.passkey_unknown"))


def log_out(ann: Visitor) -> None:
    """On a phone."""
    ann.press("frame.menu")
    ann.press("frame.log_out")
    ann.at("login")


def test_it_is_used_without_a_mouse(inside: Inside) -> None:
    ann, _ = inside(DESKTOP, USD="5.00")
    page = ann.page
    page.reload()
    expect(page.locator(".purse")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=ann.t("frame.skip"))).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.get_by_role("main").get_by_role("link", name=ann.t("menu.send")).focus()
    page.keyboard.press("Enter")
    ann.at("send")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    for way in ("tab.send", "tab.scheduled", "tab.files"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=ann.t(way), exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("somebody@example.org")
    page.keyboard.press("Tab")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("1\u00a0USD")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_label(ann.t("field.to"), exact=True)).to_have_value("somebody@example.org")


def test_what_a_view_cannot_have_is_said_and_the_rest_goes_on(inside: Inside) -> None:
    ann, _ = inside(DESKTOP, USD="5.00")
    ann.page.goto(f"{ann.url}/#/pay/nothing")
    ann.sees(ann.t("error.payment_intent_not_found"))
    ann.page.context.set_offline(True)
    ann.page.evaluate("location.hash = '#/history'")
    ann.sees(ann.t("error.offline"))
    ann.page.context.set_offline(False)
    ann.go("wallets")
    ann.sees("5.00\u00a0USD")
