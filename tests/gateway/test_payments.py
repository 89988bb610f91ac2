"""The stories of paying, before a small network that can be told to dawdle; and what the API refuses."""

import sqlite3
from collections.abc import Callable

import pytest

from node.protocol.address import address_of
from node.protocol.codec import encode
from tests.chains import key
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.payment_stories import PaymentStories
from tests.person import Person
from tests.waiting import until


@pytest.fixture
def person(world: World) -> Callable[[], Person]:
    return world.person


class TestPayments(PaymentStories):
    """On the small network."""


def test_a_cross_shard_payment_shows_prepared_with_the_amount_held_until_all_sides_have_it(world: World) -> None:
    made = world.deal(0, 1)
    with world.network.switched(slow_commit=True):
        pending = made.pay("4", wait=1)
        assert pending["status"] == "prepared"
        assert (made.ann.balance(made.purse), made.bob.balance(made.till)) == (("6.00", "4.00"), ("0.00", "0.00"))
    assert made.ann.transfer(pending["id"], wait=10)["status"] == "committed"
    assert made.available() == ("6.00", "4.00")


def test_what_a_wallet_cannot_pay_is_rejected_at_once_and_nothing_leaves_the_gateway(world: World) -> None:
    made = world.deal()
    empty = made.ann.wallet()
    with world.network.switched(hold=True):
        paid = made.pay("8.00")
        assert paid["status"] != "rejected"
        refused = [made.pay("2.01"), made.ann.pay(empty, made.till["address"], "0.01").json()]
        affordable = made.pay("2.00")
    for view in refused:
        assert (view["status"], view["code"], view["height"]) == ("rejected", "insufficient_funds", None)
        assert view["finalized_at"] is not None
    for view in (paid, affordable):
        assert made.ann.transfer(view["id"], wait=15)["status"] == "committed"
    assert made.available() == ("0.00", "10.00")
    assert not {view["id"] for view in refused} & {one.hex() for one in world.network.heard}
    again = made.ann.get(f"/v1/wallets/{made.purse['id']}/transfers").json()["items"]
    assert [item["status"] for item in again if item["id"] == refused[0]["id"]] == ["rejected"]


def test_a_rejected_transfer_is_unsigned_so_that_nobody_can_hand_it_in(world: World) -> None:
    made = world.deal()
    view = made.pay("10.01")
    with sqlite3.connect(world.folder / "gateway.db") as connection:
        query = "SELECT payload FROM transfers WHERE transaction_id = ?"
        ((payload,),) = connection.execute(query, (bytes.fromhex(view["id"]),)).fetchall()
    handed_in = made.ann.post("/v1/transactions", {"transaction": payload.hex()})
    assert problem(handed_in) == (422, "bad_signature")


def test_a_transaction_that_a_block_had_before_it_was_handed_in_is_answered_within_seconds(world: World) -> None:
    network, payer, payee = world.network, key("pays through another gateway"), key("is paid by it")
    home = network.chains.shard_of(payer)
    network.hand_in(network.sign(USD_ISSUER, address_of(payer.public), 1000))
    until(lambda: home.state.balances_of(address_of(payer.public)), "funded")
    payment = network.sign(payer, address_of(payee.public), 400)
    network.hand_in(payment)
    until(lambda: home.state.has_seen(payment.id, payment.order.valid_until), "in a block")
    height = network.height(home.number)
    until(lambda: world.gateway.http.get(f"/v1/blocks/{home.number}/{height}").status_code == 200, "which is followed")
    bob = world.person()
    till = bob.wallet(key=payee)
    done = bob.post("/v1/transactions", {"transaction": encode(payment).hex()}, wait=20)
    assert (done.status_code, done.json()["status"]) == (200, "committed")
    assert bob.balance(till) == ("4.00", "0.00")
    assert [(line["id"], line["direction"]) for line in bob.history(till)] == [(payment.id.hex(), "received")]
    assert events_of(world, bob.email) == [("transfer.committed", payment.id.hex()), ("transfer.received", payment.id.hex())]
    assert verified(world, payment.id.hex())


def verified(world: World, transfer: str) -> bool:
    """Whether there is a proof of a transfer."""
    return world.gateway.http.get(f"/v1/transactions/{transfer}/proof").status_code == 200


def test_one_key_gives_the_same_transfer_when_the_money_is_gone(world: World) -> None:
    made = world.deal()
    first = made.pay("10.00", key="all", wait=15)
    assert first["status"] == "committed"
    assert made.pay("10.00", key="all")["id"] == first["id"]
    assert made.pay("10.00", key="more")["status"] == "rejected"


def test_a_fee_is_added_shown_and_collected_and_dust_refused(new_world: Callable[..., World]) -> None:
    world = new_world(terms={"USD": (3, 50)})
    world.start_gateway()
    made = world.deal(0, 1)
    (usd,) = [asset for asset in world.gateway.http.get("/v1/network").json()["assets"] if asset["code"] == "USD"]
    assert (usd["fee"], usd["smallest_balance"]) == ("0.03", "0.50")
    paid = made.pay("4.00", wait=15)
    assert (paid["status"], paid["amount"], paid["fee"]) == ("committed", "4.00", "0.03")
    assert [(one["to"], one["amount"]) for one in paid["legs"]] == [(made.till["address"], "4.00"), (usd["issuer"], "0.03")]
    assert made.available() == ("5.97", "4.00")
    views = [made.pay(amount) for amount in ("5.95", "5.45")]
    assert [view["code"] for view in views] == ["insufficient_funds", "below_smallest_balance"], "the fee is to be paid, too"
    assert {view["status"] for view in views} == {"rejected"}
    assert made.pay("5.94", wait=15)["status"] == "committed"
    dust = made.ann.pay(made.purse, made.till["address"], "0.49")
    assert problem(dust) == (422, "below_smallest_balance")


def test_what_belongs_to_others_is_not_there(world: World) -> None:
    _, purse, eve, hers = made = world.deal()
    mine = f"/v1/wallets/{purse['id']}"
    others = made.ann.pay(purse, made.ann.wallet()["address"], "1").json()["id"]
    answers = [eve.get(path) for path in (mine, f"{mine}/transfers", f"/v1/transfers/{others}")]
    for answer in (*answers, eve.pay(purse, hers["address"], "1.00"), eve.faucet(purse, "1")):
        assert answer.status_code == 404, answer.text
    assert purse["id"] not in {wallet["id"] for wallet in eve.get("/v1/wallets").json()["items"]}


def test_bad_orders_are_refused_with_a_code(world: World) -> None:
    ann, purse, _, till = world.deal()
    good = {"from_wallet": purse["id"], "to": till["address"], "asset": "USD", "amount": "1.00"}
    amounts = ("1.001", "-1", "1e3", "0.00", "92233720368547758.08")
    bad: list[tuple[str, dict[str, object]]] = [("invalid_amount", {"amount": amount}) for amount in amounts]
    malformed: list[dict[str, object]] = [{"amount": 1.5}, {"asset": "usd"}, {"memo": "é" * 71}, {"surprise": 1}]
    bad += [("invalid_request", changes) for changes in malformed]
    bad += [("unknown_asset", {"asset": "XYZ"}), ("invalid_address", {"to": "spay1qqqq"}), ("same_account", {"to": purse["id"]})]
    for code, changes in bad:
        assert (problem(ann.post("/v1/transfers", good | changes)), changes) == ((422, code), changes)


def events_of(world: World, email: str) -> list[tuple[str, str]]:
    with sqlite3.connect(world.folder / "gateway.db") as connection:
        query = "SELECT type, subject FROM events WHERE user_id = (SELECT id FROM users WHERE email = ?) ORDER BY id"
        return connection.execute(query, (email,)).fetchall()


def test_payer_and_payee_get_one_event_each_of_a_payment_and_the_payer_alone_of_a_rejected_one(
    world: World,
) -> None:
    made = world.deal(0, 1)
    paid, rejected = made.pay("4.00", wait=20), made.pay("100.00")
    assert (paid["status"], rejected["status"]) == ("committed", "rejected")
    funding, *told = [event for event in events_of(world, made.ann.email) if event[0] != "transfer.received"]
    assert funding[0] == "transfer.committed"
    assert told == [("transfer.committed", paid["id"]), ("transfer.rejected", rejected["id"])]
    assert events_of(world, made.bob.email) == [("transfer.received", paid["id"])]
