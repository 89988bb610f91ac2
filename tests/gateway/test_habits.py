"""What every answer has, whatever was asked: an id, a language, headers; and what every request must be."""

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from gateway import problems
from gateway.gatekeeper import Gatekeeper
from gateway.languages import LANGUAGES, preferred, words
from tests.gateway.world import World
from tests.odd_texts import assert_refused_everywhere
from tests.person import Deal

SPOKEN = {"en": "en", "de": "de-AT, en;q=0.5", "es": "fr, es;q=0.8, en;q=0.7", "zh": "zh-Hans-CN"}


@pytest.fixture(scope="module")
def made(world: World) -> Deal:
    return world.deal(0, 1)


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/healthz", "/v1/network", "/v1/nothing", "/web/main.js", "/nothing"]
)
def test_every_answer_has_a_request_id_and_headers_that_protect(world: World, path: str) -> None:
    answer = world.gateway.http.get(path)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.match("default-src '(none|self)'", answer.headers["content-security-policy"])
    assert "script-src 'unsafe" not in answer.headers["content-security-policy"]
    assert (answer.headers.get("cache-control") == "no-store") == path.startswith("/v1")


def test_a_well_formed_request_id_is_kept_and_another_replaced(world: World, made: Deal) -> None:
    for path, method in (("/v1/wallets/nothing", "GET"), ("/v1/transfers", "POST"), ("/healthz", "POST")):
        for wished, kept in (("order-17:try.2", True), ("a b", False), ("x" * 129, False), ('"}', False)):
            answer = made.ann.http.request(method, path, headers={"X-Request-Id": wished})
            given = answer.headers["x-request-id"]
            assert (given == wished) == kept
            assert answer.json()["request_id"] == given


def test_an_error_of_ours_is_logged_with_the_request_id_it_is_answered_with_and_no_other_word() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise RuntimeError("what only the log may say")

    async def ask(headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(Gatekeeper(app, SimpleNamespace(metrics=SimpleNamespace(request=lambda *_: None))))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get("/", headers=headers)

    with capture_logs(processors=[merge_contextvars]) as lines:
        answer = asyncio.run(ask({"X-Request-Id": "find-me", "Accept-Language": "de"}))
    assert problem(answer) == (500, "internal_error")
    assert "only the log" not in answer.text
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "find-me"
    assert [line["request_id"] for line in lines if line["event"] == "request failed"] == ["find-me"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_problems_speak_the_language_that_the_client_prefers(world: World, made: Deal, language: str) -> None:
    heard = {"Accept-Language": SPOKEN[language]}
    answer = made.ann.http.get("/v1/wallets/nothing", headers=heard)
    assert answer.headers["content-language"] == language
    assert answer.headers["vary"] == "Accept-Language"
    assert answer.json()["title"] == words(language, "error.wallet_not_found")
    assert answer.json()["detail"] == ("you have no such wallet" if language == "en" else answer.json()["title"])
    body = {"from_wallet": 1, "to": "x" * 300, "asset": "usd", "colour": "red"}
    found = made.ann.http.post("/v1/transfers", json=body, headers=heard).json()["errors"]
    said = {error["pointer"]: (error["code"], error["detail"]) for error in found}
    assert said == {
        "/body/from_wallet": ("form", words(language, "invalid.form")),
        "/body/to": ("too_long", str(words(language, "invalid.too_long")).replace("{max_length}", "254")),
        "/body/asset": ("form", words(language, "invalid.form")),
        "/body/amount": ("missing", words(language, "invalid.missing")),
        "/body/colour": ("unknown_field", words(language, "invalid.unknown_field")),
    }


def test_the_language_liked_best_is_spoken_and_english_where_none_is() -> None:
    for wishes, language in {
        "": "en",
        "fr": "en",
        "de": "de",
        "fr, de;q=0.3, zh-TW;q=0.9, es;q=0.5": "zh",
        "en;q=0.1, ES-mx;q=0.2": "es",
        "de;q=0, es;q=0.001": "es",
        "de;q=nan, es;q=x, zh;q=7": "en",
        "*": "en",
        ";;;,,,=": "en",
    }.items():
        assert preferred(wishes) == language, wishes


def test_only_a_repeated_answer_says_that_it_is_one(made: Deal) -> None:
    purse, till = made.purse["id"], made.till["address"]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/transfers", {"from_wallet": purse, "to": till, "asset": "USD", "amount": "1.00"}),
        ("/v1/transfers", {"from_wallet": purse, "legs": [{"to": till, "asset": "USD", "amount": "1.00"}]}),
        ("/v1/faucet", {"wallet_id": purse, "asset": "USD", "amount": "1.00"}),
        ("/v1/payment-intents", {"wallet_id": made.till["id"], "asset": "USD", "amount": "1.00"}),
    ]
    for number, (path, body) in enumerate(asked):
        person = made.bob if "intents" in path else made.ann
        key = {"Idempotency-Key": f"said-once-{number}"}
        first, again = (person.http.post(path, json=body, headers=key) for _ in range(2))
        assert "idempotent-replayed" not in first.headers, path
        assert again.headers["idempotent-replayed"] == "true", path
        assert again.json()["id"] == first.json()["id"]
        other = person.http.post(
            path, json={**body, "amount": "2.00"} if "amount" in body else {**body, "memo": "x"}, headers=key
        )
        assert (problem(other), "idempotent-replayed" in other.headers) == ((409, "idempotency_conflict"), False)
        assert "idempotent-replayed" not in person.http.post(path, json=body).headers


def test_405_names_every_method_of_the_path(world: World) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/me", "DELETE, GET, HEAD, PATCH"),
        ("DELETE", "/v1/wallets", "GET, HEAD, POST"),
        ("GET", "/v1/auth/login", "POST"),
        ("POST", "/v1/transfers/ab", "GET, HEAD"),
        ("POST", "/web/main.js", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("TRACE", "/healthz", "GET, HEAD"),
    ):
        answer = world.gateway.http.request(method, path)
        assert (problem(answer), answer.headers["allow"]) == ((405, "method_not_allowed"), allowed), path


def test_head_is_get_without_the_body_and_streams_nothing(world: World, made: Deal) -> None:
    for path in ("/", "/healthz", "/v1/network", "/v1/me", "/v1/wallets/nothing", "/web/main.js"):
        asked, head = made.ann.http.get(path), made.ann.http.head(path)
        assert (head.status_code, head.content) == (asked.status_code, b"")
        assert head.headers["content-type"] == asked.headers["content-type"]
    for _ in range(10):  # more than one user may have streams
        assert made.ann.http.head("/v1/events").status_code == 200


def test_a_path_with_a_slash_too_many_is_nowhere_and_no_other_host_is_named(world: World) -> None:
    for path in ("/v1/wallets/", "/healthz/", "/docs/", "/web"):
        answer = world.gateway.http.get(path, headers={"Host": "evil.example"})
        assert (problem(answer), "location" in answer.headers) == ((404, "not_found"), False), path


def test_a_body_is_json_and_said_to_be(made: Deal) -> None:
    body = json.dumps({"label": "x"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "", None):
        headers = {} if kind is None else {"Content-Type": kind}
        answer = made.ann.http.post("/v1/wallets", content=body, headers=headers)
        assert (problem(answer), answer.headers["accept"]) == ((415, "unsupported_media_type"), "application/json"), kind
    answer = made.ann.http.post("/v1/wallets", content=body, headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 201


def test_a_text_with_nul_or_half_a_character_is_refused_wherever_it_is(made: Deal) -> None:
    assert_refused_everywhere(made)
