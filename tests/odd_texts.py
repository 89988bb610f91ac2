"""Texts that no database, or not every one, can keep: wherever a client may put one, it is refused, and nothing else happens."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.person import PASSWORD, Deal

NUL, LONE_SURROGATE = "a\0b", "a\ud800b"


def assert_refused_everywhere(made: Deal) -> None:
    """In paths, queries and bodies of all endpoints: 4xx, never an error of the gateway's."""
    http = made.ann.http
    before = made.available()
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            for odd in ("a%00b", "a%ED%A0%80b") if "{" in path else ():
                status = http.request(method, re.sub(r"\{\w+\}", odd, path)).status_code
                assert 400 <= status < 500, (method, path, odd, status)
            for name in (one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"):
                answer = http.request(method, f"{re.sub(r'{.*?}', '0', path)}?{name}=a%00b")
                assert 400 <= answer.status_code < 500, (method, path, name, answer.text)
    for path, body in _bodies(made):
        assert http.post(path, json=body).status_code < 300, (path, body)
        for changed in _changed(body):
            answer = http.post(path, content=json.dumps(changed), headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, (path, changed, answer.text)
    raw = http.post("/v1/wallets", content=b'{"label": "a\xed\xa0\x80b"}', headers={"Content-Type": "application/json"})
    assert 400 <= raw.status_code < 500, raw.text
    assert made.available() == before


def _bodies(made: Deal) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests that go well and move nothing."""
    purse, till = made.purse["id"], made.till["address"]
    much = {"asset": "USD", "amount": "1000000.00"}
    yield "/v1/transfers", {"from_wallet": purse, "to": till, "memo": "tea", **much}
    yield "/v1/transfers", {"from_wallet": purse, "legs": [{"to": till, **much}], "memo": "tea"}
    yield "/v1/wallets", {"label": "main"}
    yield "/v1/auth/login", {"email": made.ann.email, "password": PASSWORD}
    yield "/v1/auth/password/forgot", {"email": made.ann.email}
    described = {"description": "a book", "reference": "7", "metadata": {"color": "red"}, "success_url": "https://shop.example/"}
    yield "/v1/payment-intents", {"wallet_id": purse, "asset": "USD", "amount": "1.00", **described}
    coins = {"asset": "USD", "amount": "1.00"}
    yield "/v1/exchanges", {"wallet_id": purse, "give": coins, "want": {"asset": "VND", "amount": "5"}}


def _changed(body: Any) -> Iterator[Any]:
    """With one text, or one name, that holds what it must not."""
    if isinstance(body, str):
        yield from (NUL, LONE_SURROGATE)
    elif isinstance(body, dict):
        for name, value in body.items():
            yield from ({**body, name: changed} for changed in _changed(value))
        yield from ({**body, odd: "x"} for odd in (NUL, LONE_SURROGATE))
    elif isinstance(body, list):
        for index, value in enumerate(body):
            yield from ([*body[:index], changed, *body[index + 1 :]] for changed in _changed(value))
