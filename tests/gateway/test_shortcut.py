"""The short cut answers as the endpoint does; what is not ordinary reaches the endpoint."""

import asyncio
import json
from typing import Any, cast

import httpx
import msgspec
import pytest

from gateway import server
from gateway.api.shortcut import PlainTransfer
from gateway.api.transfers import NewTransfer
from gateway.server import OneWrite
from tests.gateway.world import World
from tests.person import Deal, Person

USUAL, THE_LONG_WAY = "application/json", "application/json; charset=utf-8"


@pytest.fixture(scope="module")
def made(world: World) -> Deal:
    return world.deal(0, 1)


def ask(person: Person, kind: str, content: str | bytes, path: str = "/v1/transfers", **headers: str) -> httpx.Response:
    """``kind``: the content type."""
    return person.http.post(path, content=content, headers={"Content-Type": kind, "X-Request-Id": "both-ways"} | headers)


def order(made: Deal, **changes: Any) -> str:
    return json.dumps({"from_wallet": made.purse["id"], "to": made.till["address"], "asset": "USD", "amount": "1.00"} | changes)


def test_both_ways_are_one_endpoint(made: Deal) -> None:
    path, content = "/v1/transfers?wait=20", order(made, memo="fu\u0308r Anna ☕")
    first = [ask(made.ann, kind, content, path, **{"Idempotency-Key": kind}) for kind in (USUAL, THE_LONG_WAY)]
    assert [answer.status_code for answer in first] == [200, 200]
    assert first[0].json().keys() == first[1].json().keys()
    assert [answer.json()["status"] for answer in first] == ["committed"] * 2
    assert first[0].json()["memo"] == "für Anna ☕"
    for key, before in zip((USUAL, THE_LONG_WAY), first, strict=True):
        for kind in (USUAL, THE_LONG_WAY):
            again = ask(made.ann, kind, content, path, **{"Idempotency-Key": key})
            assert (again.status_code, again.json()) == (200, before.json()), "one key is one transfer, whichever way"
            assert again.headers.keys() - before.headers.keys() == {"idempotent-replayed"}
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["content-type"] == "application/json"
            conflict = ask(made.ann, kind, order(made, amount="2.00"), path, **{"Idempotency-Key": key})
            assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    assert made.ann.transfer(first[0].json()["id"]) == first[0].json(), "what is told from memory is what is stored"


def test_a_header_twice_means_the_same_both_ways(made: Deal) -> None:
    def pay(kind: str) -> str:
        headers = [("Content-Type", kind), ("Idempotency-Key", "first"), ("Idempotency-Key", "second")]
        return str(made.ann.http.post("/v1/transfers", content=order(made), headers=headers).json()["id"])

    assert pay(USUAL) == pay(THE_LONG_WAY)


@pytest.mark.parametrize(
    ("changes", "headers", "path"),
    [
        ({"amount": "0"}, {}, ""),
        ({"amount": "1.001"}, {}, ""),
        ({"amount": 1}, {}, ""),
        ({"amount": "1" * 41}, {}, ""),
        ({"asset": "XYZ"}, {}, ""),
        ({"asset": "USD\n"}, {}, ""),
        ({"asset": "usd"}, {}, ""),
        ({"to": ""}, {}, ""),
        ({"to": "x" * 255}, {}, ""),
        ({"to": "nobody@"}, {}, ""),
        ({"to": "spay1qqqq"}, {}, ""),
        ({"from_wallet": "of nobody"}, {}, ""),
        ({"from_wallet": "f" * 65}, {}, ""),
        ({"memo": "x" * 141}, {}, ""),
        ({"memo": "é" * 71}, {}, ""),
        ({"memo": "\ud800"}, {}, ""),
        ({"memo": None}, {}, ""),
        ({"memo": "two\nlines"}, {}, ""),
        ({"memo": "Ann\u202ebob"}, {}, ""),
        ({"surprise": 1}, {}, ""),
        ({}, {"Authorization": "Bearer nonsense"}, ""),
        ({}, {"Authorization": "Basic abc"}, ""),
        ({}, {"Authorization": ""}, ""),
        ({"amount": 1}, {"Authorization": "Bearer nonsense"}, ""),
        ({}, {"Idempotency-Key": "k" * 201}, ""),
        ({}, {}, "?wait=-1"),
        ({}, {}, "?wait=soon"),
        ({}, {}, "?wait=inf"),
        ({"amount": "1000.00"}, {}, "?wait=0.5"),
        ({"amount": "1000.00"}, {}, "?wait=0&wait=0"),
        ({"amount": "1000.00"}, {}, "?other=1"),
    ],
)
def test_both_ways_refuse_alike(made: Deal, changes: dict[str, Any], headers: dict[str, str], path: str) -> None:
    answers = [ask(made.ann, kind, order(made, **changes), f"/v1/transfers{path}", **headers) for kind in (USUAL, THE_LONG_WAY)]
    own = {"id", "transaction_id", "valid_until", "created_at", "finalized_at"}
    views = [{name: value for name, value in answer.json().items() if name not in own} for answer in answers]
    assert (answers[0].status_code, views[0]) == (answers[1].status_code, views[1])
    assert answers[0].headers.get("www-authenticate") == answers[1].headers.get("www-authenticate")
    assert answers[0].headers["content-type"] == answers[1].headers["content-type"]
    assert answers[0].status_code >= 400 or views[0]["status"] == "rejected"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"[" * 4000, 400),
        (b'{"to": ' + b"[" * 4000, 400),
        (b'{"to": "\xff"}', 400),
        (b"{" * 60_000, 422),
        (b" " * 70_000, 413),
    ],
    ids=["empty", "broken", "a list", "deep", "deep inside", "not UTF-8", "long", "too long"],
)
def test_what_is_no_order_is_refused_by_the_endpoint(made: Deal, content: bytes, status: int) -> None:
    answers = [ask(made.ann, kind, content) for kind in (USUAL, THE_LONG_WAY)]
    assert [answer.status_code for answer in answers] == [status] * 2
    assert answers[0].json() == answers[1].json()


def test_a_body_in_pieces_and_other_methods_reach_the_endpoint(made: Deal) -> None:
    pieces = [order(made, amount="1000.00").encode()[at : at + 20] for at in range(0, 400, 20)]
    answer = made.ann.http.post("/v1/transfers", content=iter(pieces), headers={"Content-Type": USUAL})
    assert (answer.status_code, answer.json()["code"]) == (200, "insufficient_funds")
    large = made.ann.http.post("/v1/transfers", content=iter([b" " * 50_000] * 2), headers={"Content-Type": USUAL})
    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    assert made.ann.http.put("/v1/transfers").status_code == 405


def test_it_reads_what_the_description_of_the_api_says() -> None:
    (described, read) = NewTransfer.model_json_schema(), msgspec.json.schema(PlainTransfer)["$defs"]["PlainTransfer"]
    assert (described["required"], described["additionalProperties"]) == (read["required"], read["additionalProperties"])
    limits = ("type", "minLength", "maxLength", "default")
    for name, field in described["properties"].items():
        assert [field.get(limit) for limit in limits] == [read["properties"][name].get(limit) for limit in limits], name


def test_its_answers_are_counted(world: World, made: Deal) -> None:
    def counted(status: int) -> float:
        lines = dict(line.rsplit(" ", 1) for line in world.gateway.http.get("/metrics").text.splitlines())
        return float(lines.get(f'shardpay_gateway_requests_total{{method="POST",status="{status}"}}', 0))

    before = counted(200), counted(404)
    assert made.pay("1000.00")["status"] == "rejected"
    assert ask(made.ann, USUAL, order(made, from_wallet="of nobody")).status_code == 404
    assert (counted(200), counted(404)) == (before[0] + 1, before[1] + 1)


class Wire(asyncio.Transport):
    """Remembers what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes | None] = []
        self.unsent = 0
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted.set()

    def write(self, data: Any) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append(None)

    def is_closing(self) -> bool:
        return None in self.done


def test_what_is_written_in_one_turn_leaves_together_in_order_and_before_the_end() -> None:
    async def story() -> None:
        wire = Wire()
        transport = cast(Any, OneWrite(wire))
        transport.write(b"head ")
        transport.write(b"body")
        assert wire.done == []
        await asyncio.sleep(0)
        assert wire.done == [b"head body"]
        transport.write(b"bye")
        transport.close()
        assert wire.done == [b"head body", b"bye", None]
        assert transport.is_closing()
        await asyncio.sleep(0)
        assert len(wire.done) == 3

    asyncio.run(story())


def test_who_takes_nothing_is_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER", 0.01)

    async def story() -> None:
        slow, quick = Wire(), Wire()
        slow.unsent = 5
        for wire in (slow, quick):
            OneWrite(wire).close()
            assert wire.done == [None]
        async with asyncio.timeout(10):
            await slow.aborted.wait()
        assert not quick.aborted.is_set()

    asyncio.run(story())
