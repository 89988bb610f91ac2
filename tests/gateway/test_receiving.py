"""Paying an e-mail address: its owner's addresses stay unknown, money waits for who has no account yet, and goes back in time."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, update

from gateway.database import ReceivingAddress, Wallet, insert
from gateway.events.outbox import Outbox
from gateway.identity.tables import User
from gateway.jobs import Jobs
from gateway.receiving import Receiving
from gateway.sources import MOST, gather
from node.protocol.address import address_of, decode_address
from node.protocol.transaction import Action, Leg
from tests.gateway.fake_network import USD_ISSUER
from tests.gateway.registered import ann_registered
from tests.gateway.test_payments import events_of
from tests.gateway.world import World
from tests.person import Person
from tests.waiting import until

_AMOUNTS = st.integers(0, 100)


def pay(payer: Person, wallet: dict[str, Any], email: str, amount: str) -> dict[str, Any]:
    answer = payer.pay(wallet, email, amount, wait=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "committed"), answer.text
    view: dict[str, Any] = answer.json()
    return view


def written(world: World, sql: str, *values: Any) -> list[Any]:
    """What a statement finds, which may change the gateway's database."""
    with sqlite3.connect(world.folder / "gateway.db", timeout=10) as connection:
        return connection.execute(sql, values).fetchall()


_RETURN_OF = "kind = 'return' AND subject = (SELECT lower(hex(address)) FROM receiving_addresses WHERE email = ?)"


def return_now(world: World, email: str) -> None:
    """The 30 days of what was paid to an e-mail address are over."""
    written(world, f"UPDATE jobs SET due_at = 0 WHERE {_RETURN_OF}", email)


def jobs_of(world: World, email: str) -> list[Any]:
    """When what was paid to an e-mail address is to go back."""
    return written(world, f"SELECT due_at FROM jobs WHERE {_RETURN_OF}", email)


def freeze(world: World, address: str, action: Action) -> None:
    """Or unfreeze."""
    leg = Leg(address_of(USD_ISSUER.public), decode_address(address), "USD", 0, action)
    world.network.hand_in(world.network.chains.sign([USD_ISSUER], leg, valid_until=int(time.time() * 1000) + 60_000))


def test_each_payment_to_an_e_mail_address_shows_its_payer_one_address_that_nothing_else_is_seen_of(world: World) -> None:
    ann, bob = world.person(), world.person()
    purse, till = ann.wallet(0, USD="10.00"), bob.wallet(USD="3.00")
    first, second = pay(ann, purse, bob.email, "4.00"), pay(ann, purse, bob.email, "5.00")
    nobody = pay(ann, purse, "nobody-here@example.org", "1.00")
    addresses = {one["to"] for one in (first, second, nobody)}
    assert len(addresses) == 3
    assert till["address"] not in addresses
    assert {tuple(one["shards"]) for one in (first, second, nobody)} == {(0,)}, "the payer's, whoever is paid"
    assert first.keys() == nobody.keys()
    assert bob.balance(till) == ("12.00", "0.00")
    assert [line["amount"] for line in bob.history(till)] == ["5.00", "4.00", "3.00"]
    assert ann.get(f"/v1/accounts/{first['to']}").json()["balances"]["USD"]["available"] == "4.00"


def test_a_payee_spends_what_came_by_e_mail_together_with_the_rest_and_only_that(world: World) -> None:
    ann, bob, shop = world.person(), world.person(), world.person()
    purse, till, counter = ann.wallet(0, USD="10.00"), bob.wallet(USD="3.00"), shop.wallet(1)
    for amount in ("4.00", "5.00"):
        pay(ann, purse, bob.email, amount)
    assert pay(bob, till, counter["address"], "11.50")["status"] == "committed"
    assert (bob.balance(till), shop.balance(counter)) == (("0.50", "0.00"), ("11.50", "0.00"))
    refused = bob.pay(till, counter["address"], "0.51", wait=10).json()
    assert (refused["status"], refused["code"]) == ("rejected", "insufficient_funds")


def test_what_was_paid_before_somebody_signed_up_is_theirs_with_the_first_wallet(world: World) -> None:
    ann = world.person()
    purse, email = ann.wallet(0, USD="10.00"), f"new-{ann.email}"
    paid = pay(ann, purse, email, "4.00")
    new = Person(world.gateway.url, email)
    wallet = new.wallet()
    assert new.balance(wallet) == ("4.00", "0.00")
    assert [(line["id"], line["direction"]) for line in new.history(wallet)] == [(paid["id"], "received")]
    assert events_of(world, email) == [("transfer.received", paid["id"])]
    assert pay(new, wallet, purse["address"], "4.00")["status"] == "committed"


def test_who_claims_a_part_of_a_payment_is_told_of_it_and_the_other_payees_are_not_told_again(world: World) -> None:
    ann, shop, email = world.person(), world.person(), f"part-{random.randbytes(4).hex()}@example.org"
    purse, till = ann.wallet(0, USD="10.00"), shop.wallet()
    legs = [{"to": to, "asset": "USD", "amount": "5.00"} for to in (till["address"], email)]
    paid = ann.post("/v1/transfers", {"from_wallet": purse["id"], "legs": legs}, wait=30).json()
    told = [("transfer.received", paid["id"])]
    assert (paid["status"], events_of(world, shop.email)) == ("committed", told)
    claimer = Person(world.gateway.url, email)
    wallet = claimer.wallet()
    assert (claimer.balance(wallet), events_of(world, email)) == (("5.00", "0.00"), told)
    assert events_of(world, shop.email) == told


def test_what_nobody_claims_in_time_goes_back_and_can_be_claimed_no_more(world: World) -> None:
    ann = world.person()
    purse, email = ann.wallet(0, USD="10.00"), f"late-{ann.email}"
    pay(ann, purse, email, "4.00")
    return_now(world, email)
    until(lambda: ann.balance(purse) == ("10.00", "0.00"))
    late = Person(world.gateway.url, email)
    wallet = late.wallet()
    assert (late.balance(wallet), late.history(wallet)) == (("0.00", "0.00"), [])


def test_what_was_gathered_from_several_addresses_goes_back_whole(world: World) -> None:
    ann, bob = world.person(), world.person()
    purse, till, email = ann.wallet(0, USD="10.00"), bob.wallet(0, USD="4.00"), f"gathered-{ann.email}"
    ann.http.patch("/v1/me", json={"default_wallet": purse["id"]})
    pay(bob, till, ann.email, "4.00")
    paid = pay(ann, purse, email, "13.00")
    assert [leg["amount"] for leg in paid["legs"]] == ["10.00", "3.00"]
    return_now(world, email)
    until(lambda: jobs_of(world, email) == [], "the return has ended")
    assert ann.balance(purse) == ("14.00", "0.00")


def test_what_goes_back_pays_its_fee_and_what_that_would_leave_too_little_of_stays_to_be_claimed(
    new_world: Callable[..., World],
) -> None:
    world = new_world(terms={"USD": (3, 50)})
    world.start_gateway()
    ann, bob = world.person(), world.person()
    purse, till, email = ann.wallet(0, USD="10.03"), bob.wallet(0, USD="4.03"), f"gathered-{ann.email}"
    ann.http.patch("/v1/me", json={"default_wallet": purse["id"]})
    pay(bob, till, ann.email, "4.00")
    paid = pay(ann, purse, email, "10.50")
    assert [leg["amount"] for leg in paid["legs"]] == ["10.00", "0.50", "0.03", "0.03"]
    return_now(world, email)
    until(lambda: jobs_of(world, email) == [], "the return has ended")
    assert ann.balance(purse) == ("13.94", "0.00"), "less two fees of the payment, and one"
    pay(ann, purse, f"little-{ann.email}", "0.52")
    return_now(world, f"little-{ann.email}")
    until(lambda: jobs_of(world, f"little-{ann.email}") == [], "there is nothing to return")
    late = Person(world.gateway.url, f"little-{ann.email}")
    assert late.balance(late.wallet()) == ("0.52", "0.00")


def test_a_return_that_is_rejected_is_tried_again_an_hour_later(world: World) -> None:
    ann = world.person()
    purse, email = ann.wallet(0, USD="10.00"), f"frozen-{ann.email}"
    pay(ann, purse, email, "4.00")
    freeze(world, purse["address"], Action.FREEZE)
    until(lambda: ann.get(f"/v1/wallets/{purse['id']}").json()["balances"]["USD"]["frozen"])
    return_now(world, email)
    ((due,),) = until(lambda: [job for job in jobs_of(world, email) if job[0] > (time.time() + 3000) * 1000])
    assert due < (time.time() + 3600) * 1000
    assert [kind for kind, _ in events_of(world, ann.email)].count("transfer.rejected") == 1
    freeze(world, purse["address"], Action.UNFREEZE)
    until(lambda: not ann.get(f"/v1/wallets/{purse['id']}").json()["balances"]["USD"]["frozen"])
    written(world, "UPDATE transfers SET created_at = created_at - 3600000 WHERE kind = 'return'")
    return_now(world, email)
    until(lambda: ann.balance(purse) == ("10.00", "0.00"))


def test_outside_a_devnet_only_a_verified_address_claims_what_was_paid_to_it(tmp_path: Path) -> None:
    paid: dict[str, Any] = {
        "address": b"a",
        "email": "ann@example.org",
        "wallet_id": None,
        "transaction_id": bytes(32),
        "sealed_key": b"",
    }
    paid |= {"public_key": b"", "returned": None, "created_at": 0}
    wallet = {"id": "w", "user_id": "ann", "label": "", "address": b"w", "public_key": b"", "sealed_key": b"", "archived": False}

    async def story() -> list[int]:
        async with ann_registered(tmp_path) as database:
            outbox, missing = Outbox(database), cast(Any, None)
            receiving = Receiving(database, missing, missing, outbox, Jobs(database), devnet=False)

            def save(connection: Connection) -> None:
                connection.execute(insert(connection, Wallet).values(**wallet, created_at=0))
                connection.execute(insert(connection, ReceivingAddress).values(**paid))

            await database.write(save)
            before = await receiving.claim("ann", "ann@example.org")
            await database.write(lambda c: c.execute(update(User).values(verified_at=1)) and None)
            return [before, await receiving.claim("ann", "ann@example.org")]

    assert asyncio.run(story()) == [0, 1]


@given(st.lists(_AMOUNTS, max_size=12), st.integers(1, 300), st.integers(0, 5), st.integers(0, 10))
def test_a_payment_gathers_exactly_its_amount_and_leaves_no_address_with_less_than_the_smallest(
    purse: list[int], units: int, fee: int, smallest: int
) -> None:
    parts = gather(purse, units, fee, smallest)
    if parts is None:
        return
    assert sum(part for _, part in parts) == units
    assert len({index for index, _ in parts}) == len(parts) <= MOST
    for index, part in parts:
        left = purse[index] - part - fee
        assert part >= max(1, smallest)
        assert left == 0 or left >= smallest


@given(st.lists(_AMOUNTS, max_size=MOST), st.integers(1, 300))
def test_without_fees_and_smallest_balances_whatever_is_there_can_be_gathered(purse: list[int], units: int) -> None:
    assert (gather(purse, units) is not None) == (sum(purse) >= units)
