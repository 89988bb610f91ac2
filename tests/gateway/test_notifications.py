"""Notifications by mail: what was chosen, to whom it belongs, and not too many."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.plans.notification_texts import TYPES, written
from tests.gateway.test_accounts import problem
from tests.gateway.test_api_keys import keyed
from tests.gateway.test_mails import mails
from tests.gateway.test_scheduled_payments import PATH, asked
from tests.gateway.world import World
from tests.person import Deal, Person

CHOICE = "/v1/me/notifications"


def choose(person: Person, *events: str, amounts: bool = False) -> dict[str, Any]:
    answer = person.http.put(CHOICE, json={"events": events, "amounts": amounts})
    assert answer.status_code == 200, answer.text
    chosen: dict[str, Any] = answer.json()
    return chosen


def told_of(world: World, person: Person, count: int) -> list[dict[str, Any]]:
    """All mails but the one that verifies the address, the latest first, when there are so many."""
    return mails(world, person.email, count + 1)[:-1]


def pass_by(world: World, made: Deal) -> None:
    """Until all events up to now are dealt with."""
    other = world.person().verify()
    till = other.wallet()
    choose(other, "transfer.received")
    assert made.ann.pay(made.purse, till["id"], "0.01", wait=20).json()["status"] == "committed"
    told_of(world, other, 1)


def test_who_wants_to_know_is_told_and_of_how_much_only_who_wants_that(world: World) -> None:
    made = world.deal()
    bob, carol, dave = made.bob.verify(), world.person(), world.person().verify()
    bob.http.patch("/v1/me", json={"language": "de"})
    assert choose(bob, "transfer.received", "transfer.received", amounts=True) == {
        "events": ["transfer.received"],
        "amounts": True,
    }
    choose(carol, "transfer.received")
    choose(dave)
    for till in (carol.wallet(), dave.wallet(), made.till):
        assert made.pay("1.25", wait=20) if till is made.till else made.ann.pay(made.purse, till["id"], "1.25", wait=20)
    (told,) = told_of(world, bob, 1)
    assert (told["subject"], "Betrag: 1.25 USD" in told["text"]) == ("Sie haben Geld erhalten", True)
    assert "/#/settings" in told["text"]
    choose(bob, "transfer.received")
    made.ann.pay(made.purse, made.till["id"], "1.25", "call 0190 123456", wait=20)
    latest = told_of(world, bob, 2)[0]
    assert not [text for text in ("1.25", "0190", made.ann.email, made.purse["address"]) if text in latest["text"]]
    pass_by(world, made)
    assert len(mails(world, carol.email)) == 1, "an address that nobody has proven gets none"
    assert len(mails(world, dave.email)) == 1, "nor does who wants none"
    assert len(told_of(world, bob, 2)) == 2


def test_ten_mails_an_hour_and_the_last_says_so(world: World) -> None:
    made = world.deal()
    bob = made.bob.verify()
    choose(bob, "transfer.received")
    with ThreadPoolExecutor(6) as pool:
        paid = list(pool.map(lambda _: made.ann.pay(made.purse, made.till["id"], "0.01", wait=20).json()["status"], range(12)))
    assert paid == ["committed"] * 12
    pass_by(world, made)
    told = told_of(world, bob, 10)
    assert (len(told), sum("many mails" in one["text"] for one in told)) == (10, 1)


def test_a_scheduled_payment_that_waits_for_money_is_told_without_having_chosen_anything(world: World) -> None:
    made = world.deal()
    made.ann.verify()
    assert made.ann.post(PATH, asked(made, 2, amount="99.00")).status_code == 201
    (told,) = told_of(world, made.ann, 1)
    assert (told["subject"], "Amount" in told["text"]) == ("A scheduled payment waits for money", False)


def test_what_can_be_chosen_and_by_whom(world: World) -> None:
    ann = world.person().verify()
    chosen = ann.get(CHOICE).json()
    assert chosen == {"events": [kind for kind in TYPES if kind != "transfer.received"], "amounts": False}
    wrong: list[dict[str, Any]] = [{"events": ["transfer.committed"], "amounts": False}, {"events": []}]
    for body in (*wrong, {"events": [], "amounts": False, "x": 1}):
        assert problem(ann.http.put(CHOICE, json=body)) == (422, "invalid_request")
    assert ann.get(CHOICE).json() == chosen
    assert choose(ann) == {"events": [], "amounts": False} == ann.get(CHOICE).json()
    with keyed(ann, "read") as program:
        assert problem(program.get(CHOICE)) == (403, "api_key_not_allowed")


@pytest.mark.parametrize("language", ["en", "de", "es", "zh"])
def test_every_language_has_words_for_all_of_them(language: str) -> None:
    texts = {
        written(kind, language, amount, last, "https://w/#/")
        for kind in TYPES
        for amount in ("", "1 X")
        for last in (False, True)
    }
    assert len(texts) == 4 * len(TYPES)
    assert len({subject for subject, _ in texts}) == len(TYPES)
    assert all("https://w/#/settings" in text and "{" not in text for _, text in texts)
