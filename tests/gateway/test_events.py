"""The stream of a user's events."""

import time
from contextlib import closing

import jwt
import pytest

from gateway.events.stream import MAX_OF_USER
from tests.gateway.listener import Listener
from tests.gateway.world import World
from tests.person import Person, Wallet
from tests.waiting import until


def rejected(person: Person, wallet: Wallet, count: int) -> list[str]:
    """Payments that are rejected at once, of an empty wallet: their ids."""
    other = person.wallet()
    return [person.pay(wallet, other["address"], "1.00").json()["id"] for _ in range(count)]


def test_a_payment_is_told_to_who_paid_and_to_who_was_paid_as_its_get_shows_it(world: World) -> None:
    deal = world.deal()
    with closing(Listener(deal.ann)) as ann, closing(Listener(deal.bob)) as bob:
        paid = deal.pay("1.00", memo="für „Äpfel“ 🍎", wait=30)
        (told,), (received,) = ann.wait(1), bob.wait(1)
        assert (told.event, received.event) == ("transfer.committed", "transfer.received")
        assert (told.data["type"], told.data["id"]) == (told.event, told.id)
        assert told.data["data"] == deal.ann.transfer(paid["id"])
        assert received.data["data"] == deal.bob.transfer(paid["id"])
        assert told.data["created_at"].endswith("Z")
        deal.ann.pay(deal.purse, deal.till["address"], "1000.00")
        assert [one.event for one in ann.wait(2)] == ["transfer.committed", "transfer.rejected"]
    assert len(bob.told) == 1  # what was not paid concerns nobody else


def test_who_comes_back_goes_on_where_it_was_and_misses_nothing(world: World) -> None:
    ann = world.person()
    wallet = ann.wallet()
    paid = rejected(ann, wallet, 45)  # more than are given at once
    with closing(Listener(ann, after="0")) as listener:
        told = list(listener.wait(45))
    assert [one.data["data"]["id"] for one in told] == paid
    assert [int(one.id) for one in told] == sorted({int(one.id) for one in told})
    with closing(Listener(ann, last_event_id=told[30].id)) as again:
        again.wait(14)
        more = rejected(ann, wallet, 1)
        assert [one.data["data"]["id"] for one in again.wait(15)] == paid[31:] + more
    with closing(Listener(ann, last_event_id="999999999999999999")) as ahead:
        more = rejected(ann, wallet, 1)
        assert [one.data["data"]["id"] for one in ahead.wait(1)] == more


@pytest.mark.parametrize("place", ["nonsense", "-1", "1" * 19])
def test_a_place_that_is_none_is_refused(world: World, place: str) -> None:
    ann = world.person()
    for answer in (ann.get("/v1/events", after=place), ann.http.get("/v1/events", headers={"Last-Event-ID": place})):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_user_has_a_few_streams_and_no_more_and_ending_one_makes_room(world: World) -> None:
    ann = world.person()
    streams = [Listener(ann) for _ in range(MAX_OF_USER)]
    refused = Listener(ann).response
    assert (refused.status_code, refused.json()["code"], "retry-after" in refused.headers) == (429, "too_many_streams", True)
    with closing(Listener(world.person())) as other:
        assert other.response.status_code == 200
    streams.pop().close()

    def another() -> bool:
        streams.append(Listener(ann))
        return streams[-1].response.status_code == 200

    until(another, "room for another", pause=0.1)
    for stream in streams:
        stream.close()


def test_nothing_is_told_without_a_login_or_after_it(world: World) -> None:
    ann = world.person()
    wallet, secret = ann.wallet(), bytes.fromhex(world.gateway.environment["SHARDPAY_TOKEN_SECRET"])
    assert world.gateway.http.get("/v1/events").status_code == 401
    user = ann.get("/v1/me").json()["id"]
    token = jwt.encode({"sub": user, "sid": "of a test", "exp": int(time.time()) + 2}, secret, "HS256")
    with closing(Listener(ann, token=token)) as silent:
        until(lambda: silent.ended, "its end")
        rejected(ann, wallet, 1)
    assert not silent.told
    with closing(Listener(ann)) as listener:
        assert ann.http.post("/v1/auth/logout", json={"refresh_token": ann.refresh_token}).status_code == 204
        until(lambda: listener.ended, "its end")


def test_an_api_key_that_may_read_opens_a_stream_until_it_is_revoked(world: World) -> None:
    ann = world.person()
    ann.verify()

    def key(*scopes: str) -> dict[str, str]:
        made = ann.post("/v1/api-keys", {"name": "shop", "scopes": list(scopes)})
        assert made.status_code == 201, made.text
        view: dict[str, str] = made.json()
        return view

    assert Listener(ann, token=key("checkout")["key"]).response.status_code == 403
    reads = key("read")
    with closing(Listener(ann, token=reads["key"])) as listener:
        wallet = ann.wallet()
        rejected(ann, wallet, 1)
        listener.wait(1)
        assert ann.http.delete(f"/v1/api-keys/{reads['id']}").status_code == 204
        until(lambda: listener.ended, "its end")
