"""Webhooks: what happens reaches the receiver, signed, at least once; what must not be reached is not."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from gateway.events.deliveries import AT_ONCE_OF_USER, GIVEN_UP_AFTER_MS
from gateway.events.signatures import HEADER, BadSignature, verify
from gateway.events.webhooks import MAX_ENDPOINTS
from tests.gateway.listener import Listener
from tests.gateway.test_accounts import problem
from tests.gateway.world import World
from tests.person import PASSWORD, Person
from tests.receiver import Got, Receiver
from tests.waiting import until

Endpoint = dict[str, Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as shop:
        yield shop


class Shop:
    """A person whose events go to a receiver, and who makes some."""

    def __init__(self, world: World, receiver: Receiver, *events: str) -> None:
        self.person: Person = world.person()
        self.wallet, self.other = self.person.wallet(), self.person.wallet()
        self.endpoint = self.listen(receiver.url, *events)

    def listen(self, url: str, *events: str) -> Endpoint:
        made = self.person.post("/v1/webhook-endpoints", {"url": url, "events": list(events) or ["*"]})
        assert made.status_code == 201, made.text
        endpoint: Endpoint = made.json()
        return endpoint

    def happen(self, count: int = 1) -> list[str]:
        """Payments that are rejected at once: their ids."""
        return [self.person.pay(self.wallet, self.other["address"], "1.00").json()["id"] for _ in range(count)]

    def path(self, rest: str = "") -> str:
        return f"/v1/webhook-endpoints/{self.endpoint['id']}{rest}"

    def deliveries(self, **parameters: Any) -> Any:
        answer = self.person.get(self.path("/deliveries"), **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def delivery(self, where: Callable[[Any], bool] = lambda _: True) -> Any:
        """The latest, once ``where`` is true of it."""
        return until(
            lambda: next((one for one in self.deliveries()["items"][:1] if where(one)), None),
            "the delivery",
        )


def paid(got: Got) -> str:
    return str(got.event["data"]["id"])


def test_what_happens_is_sent_signed_and_the_log_says_so(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver)
    (happened,) = shop.happen()
    (got,) = receiver.wait(1)
    secret = shop.endpoint["secret"]
    verify(got.body, got.headers[HEADER], secret, time.time(), tolerance=30)
    with pytest.raises(BadSignature):
        verify(got.body + b" ", got.headers[HEADER], secret, time.time())
    assert got.event["data"] == shop.person.transfer(happened)
    delivery = shop.delivery(lambda one: one["status"] == "succeeded")
    assert (delivery["event_id"], delivery["type"]) == (got.event["id"], "transfer.rejected")
    (attempt,) = delivery["attempts"]
    assert (attempt["status_code"], attempt["error"], delivery["next_attempt_at"]) == (200, None, None)
    assert "secret" not in shop.person.get(shop.path()).json()
    kept = b"".join(path.read_bytes() for path in world.folder.iterdir() if path.is_file())
    assert shop.endpoint["id"].encode() in kept
    assert secret.encode() not in kept


def test_an_endpoint_gets_the_types_it_wants_while_it_wants_them(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver, "transfer.received")
    before = shop.happen()
    everything = shop.listen(receiver.url + "?all", "*")
    shop.person.faucet(shop.wallet, "5.00", wait=30)
    rows = receiver.wait(3)
    assert sorted((got.path, got.event["type"]) for got in rows) == [
        ("/hook", "transfer.received"),
        ("/hook?all", "transfer.committed"),
        ("/hook?all", "transfer.received"),
    ]
    path = f"/v1/webhook-endpoints/{everything['id']}"
    off = shop.person.http.patch(path, json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "by_owner")
    missed = shop.person.pay(shop.wallet, shop.other["address"], "100.00").json()["id"]
    assert shop.person.http.patch(path, json={"enabled": True, "events": ["transfer.rejected"]}).json()["enabled"]
    again = shop.person.pay(shop.wallet, shop.other["address"], "100.00").json()["id"]
    receiver.wait(4)
    assert shop.person.http.delete(path).status_code == 204
    assert problem(shop.person.get(path)) == (404, "webhook_endpoint_not_found")
    shop.person.pay(shop.wallet, shop.other["address"], "100.00")
    shop.person.faucet(shop.wallet, "5.00", wait=30)
    got = receiver.wait(5)
    assert [one.path for one in got[3:]] == ["/hook?all", "/hook"]
    assert again in map(paid, got)
    assert not {missed, *before} & set(map(paid, got))


def test_what_fails_is_tried_again_until_it_arrives(world: World, receiver: Receiver) -> None:
    receiver.status = 500
    shop = Shop(world, receiver)
    shop.happen()
    failed = shop.delivery(lambda one: one["attempts"])
    assert (failed["status"], failed["attempts"][0]["status_code"], failed["attempts"][0]["error"]) == ("pending", 500, "status")
    assert failed["next_attempt_at"] > failed["attempts"][0]["at"]
    assert shop.person.get(shop.path()).json()["failing_since"]
    receiver.status = 204
    first, second = receiver.wait(2)
    assert first.body == second.body
    assert 0.7 < second.at - first.at < 5
    assert len(shop.delivery(lambda one: one["status"] == "succeeded")["attempts"]) == 2
    metrics = dict(line.rsplit(" ", 1) for line in world.gateway.http.get("/metrics").text.splitlines())
    for succeeded in ("true", "false"):
        assert float(metrics[f'shardpay_gateway_webhook_attempts_total{{succeeded="{succeeded}"}}']) >= 1
    assert shop.person.get(shop.path()).json()["failing_since"] is None


def test_while_a_secret_is_replaced_both_sign(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver)
    new = shop.person.post(shop.path("/rotate-secret"), {}).json()["secret"]
    newest = shop.person.post(shop.path("/rotate-secret"), {}).json()["secret"]
    shop.happen()
    (got,) = receiver.wait(1)
    for secret in (new, newest):
        verify(got.body, got.headers[HEADER], secret, time.time())
    with pytest.raises(BadSignature):
        verify(got.body, got.headers[HEADER], shop.endpoint["secret"], time.time())
    with sqlite3.connect(world.folder / "gateway.db") as database:
        database.execute("UPDATE webhook_endpoints SET old_secret_until = 0 WHERE id = ?", [shop.endpoint["id"]])
    shop.happen()
    got = receiver.wait(2)[1]
    verify(got.body, got.headers[HEADER], newest, time.time())
    with pytest.raises(BadSignature):
        verify(got.body, got.headers[HEADER], new, time.time())


def test_a_delivery_is_replayed(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver)
    shop.happen()
    delivery = shop.delivery(lambda one: one["status"] == "succeeded")
    replay = f"/v1/webhook-deliveries/{delivery['id']}/replay"
    assert shop.person.post(replay, {}).status_code == 202
    first, second = receiver.wait(2)
    assert first.body == second.body
    assert len(shop.delivery(lambda one: one["status"] == "succeeded" and len(one["attempts"]) == 2)["attempts"]) == 2
    shop.person.http.patch(shop.path(), json={"enabled": False})
    assert problem(shop.person.post(replay, {})) == (409, "webhook_endpoint_disabled")


def test_the_log_comes_in_pages(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver)
    shop.happen(5)
    until(lambda: len(shop.deliveries()["items"]) == 5)
    pages, cursor = list[list[str]](), dict[str, str]()
    while True:
        page = shop.deliveries(limit=2, **cursor)
        pages.append([one["event_id"] for one in page["items"]])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [len(page) for page in pages] == [2, 2, 1]
    ids = [int(one) for page in pages for one in page]
    assert ids == sorted(set(ids), reverse=True)


def test_a_receiver_that_hangs_holds_up_nobody_else(world: World, receiver: Receiver) -> None:
    with closing(Receiver()) as dead:
        dead.released.clear()
        hanging, good = Shop(world, dead), Shop(world, receiver)
        hanging.happen(3 * AT_ONCE_OF_USER)
        dead.wait(AT_ONCE_OF_USER)
        happened = good.happen(3)
        assert sorted(map(paid, receiver.wait(3))) == sorted(happened)
        assert len(dead.got) == AT_ONCE_OF_USER
        dead.released.set()
        dead.wait(3 * AT_ONCE_OF_USER)


def test_an_endpoint_that_takes_nothing_for_days_is_disabled_and_says_so(world: World, receiver: Receiver) -> None:
    receiver.status = 500
    shop = Shop(world, receiver)
    shop.happen()
    shop.delivery(lambda one: one["attempts"])
    assert shop.person.get(shop.path()).json()["enabled"]
    with sqlite3.connect(world.folder / "gateway.db") as database:
        since = int(time.time() * 1000) - GIVEN_UP_AFTER_MS
        database.execute("UPDATE webhook_endpoints SET failing_since = ? WHERE id = ?", [since, shop.endpoint["id"]])
    until(lambda: not shop.person.get(shop.path()).json()["enabled"], "disabled")
    view = shop.person.get(shop.path()).json()
    assert (view["disabled_reason"], view["failing_since"] is None) == ("failing", False)
    assert shop.delivery(lambda one: one["status"] == "failed")["next_attempt_at"] is None
    receiver.status = 200
    count = len(receiver.got)
    back = shop.person.http.patch(shop.path(), json={"enabled": True}).json()
    assert (back["enabled"], back["disabled_reason"], back["failing_since"]) == (True, None, None)
    (happened,) = shop.happen()
    assert paid(receiver.wait(count + 1)[-1]) == happened


def test_endpoints_and_deliveries_are_their_owners_alone(world: World, receiver: Receiver) -> None:
    shop, stranger = Shop(world, receiver), world.person()
    shop.happen()
    delivery = shop.delivery(lambda one: one["status"] == "succeeded")
    for answer in (
        stranger.get(shop.path()),
        stranger.get(shop.path("/deliveries")),
        stranger.http.patch(shop.path(), json={"enabled": False}),
        stranger.http.delete(shop.path()),
        stranger.post(shop.path("/rotate-secret"), {}),
    ):
        assert problem(answer) == (404, "webhook_endpoint_not_found")
    for one in (delivery["id"], "0", "9" * 30, "x"):
        assert problem(stranger.post(f"/v1/webhook-deliveries/{one}/replay", {})) == (404, "webhook_delivery_not_found")
    assert stranger.get("/v1/webhook-endpoints").json()["items"] == []
    assert [one["id"] for one in shop.person.get("/v1/webhook-endpoints").json()["items"]] == [shop.endpoint["id"]]
    assert len(receiver.got) == 1


def test_what_is_no_endpoint_is_refused(world: World, receiver: Receiver) -> None:
    ann = world.person()

    def refused(url: str, *events: str) -> tuple[int, str]:
        return problem(ann.post("/v1/webhook-endpoints", {"url": url, "events": list(events)}))

    assert refused(receiver.url) == refused(receiver.url, "transfer.lost") == (422, "invalid_request")
    assert refused("https://user:word@localhost/", "*") == refused("ftp://localhost/", "*") == (422, "invalid_url")
    for inside in ("169.254.169.254/latest/meta-data", "[fe80::1]/", "0.0.0.0/"):
        assert refused(f"http://{inside}", "*") == (422, "address_refused")
    for _ in range(MAX_ENDPOINTS):
        assert ann.post("/v1/webhook-endpoints", {"url": receiver.url, "events": ["*"]}).status_code == 201
    assert refused(receiver.url, "*") == (409, "limit_exceeded")


def test_where_a_webhook_goes_is_looked_at_again_each_time(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver)
    with sqlite3.connect(world.folder / "gateway.db") as database:
        database.execute("UPDATE webhook_endpoints SET url = 'http://0.0.0.0:8080/' WHERE id = ?", [shop.endpoint["id"]])
    shop.happen()
    (attempt,) = shop.delivery(lambda one: one["attempts"])["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (None, "address_refused")


def test_a_closed_account_leaves_no_trace_of_where_its_events_went(world: World, receiver: Receiver) -> None:
    shop = Shop(world, receiver)
    assert shop.person.http.request("DELETE", "/v1/me", json={"password": PASSWORD}).status_code == 204
    with sqlite3.connect(world.folder / "gateway.db") as database:
        query = "SELECT url, secret, deleted FROM webhook_endpoints WHERE id = ?"
        assert database.execute(query, [shop.endpoint["id"]]).fetchall() in ([], [("", b"", 1)])


def test_nothing_is_lost_when_the_gateway_dies(new_world: Callable[..., World], receiver: Receiver) -> None:
    world = new_world()
    world.start_gateway()
    receiver.released.clear()
    shop = Shop(world, receiver)
    happened = shop.happen(20)
    receiver.wait(1)
    world.gateway.kill()  # some are sent and not answered, some not sent, some perhaps not even deliveries yet
    asked = len(receiver.got)
    receiver.released.set()
    world.start_gateway()
    arrived = receiver.wait(asked + 20)
    until(lambda: all(one["status"] == "succeeded" for one in shop.deliveries(limit=100)["items"]), "all delivered")
    assert sorted(map(paid, arrived[asked:])) == sorted(happened)
    bodies = {got.event["id"]: got.body for got in arrived}
    assert len(bodies) == len(shop.deliveries(limit=100)["items"]) == 20
    assert all(got.body == bodies[got.event["id"]] for got in arrived)

    receiver.released.clear()
    shop.happen()
    receiver.wait(asked + 21)
    with closing(Listener(shop.person)) as listener:
        begun = time.monotonic()
        assert world.gateway.stop() == 0
        assert time.monotonic() - begun < 5
        until(lambda: listener.ended, "the end of the stream")
