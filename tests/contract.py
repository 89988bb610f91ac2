"""Does the gateway do what its description (OpenAPI) says? schemathesis asks, with all its checks, a real gateway with real data.

    python -m tests.contract [--database postgresql] [--examples 100] [--seed 1]

Values of a user who has everything (wallets, payments, intents, deliveries ...) are mixed into what it makes up, so that requests
get past the first refusal. Prints operations, cases, checks and failures; exit code 1 if there are failures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from scripts.devnet.postgres import USER, find_programs, running_server
from tests.gateway.world import World
from tests.person import PASSWORD, Person
from tests.receiver import Receiver
from tests.waiting import until

_ROOT = Path(__file__).parent.parent
_MIXED_IN = 0.7
"""How often a real value stands for one that is made up."""
_CARD = {"number": "4242 4242 4242 4242", "exp_month": 12, "exp_year": 2099, "cvc": "123"}
_NEXT_YEAR = f"{date.today().year + 1}-06-15T09:00"
_IBAN = "DE89 3704 0044 0532 0130 00"
_LONG_LIVED = {"token_lifetime": 36_000, "attempts_per_address": 1_000_000}


_CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "positive_data_acceptance",
    "negative_data_rejection",
    "use_after_free",
    "ensure_resource_availability",
    "missing_required_header",
    "ignored_auth",
    "object_level_authorization",
    "unsupported_method",
    "allow_header_conformance",
]
"""All there are."""
_SENSIBLE = ["2xx", "401", "403", "404", "409", "422", "429"]
"""Answers to who asks as described."""
_SHOWN_BY_ID = ["/v1/payment-intents/{intent_id}", "/v1/exchanges/{exchange_id}"]
"""To whoever knows the id, which cannot be guessed: links to pay are sent around."""
_UNHIDDEN = {"object_level_authorization": {"enabled": False}}
_UNREADY = {"expected-statuses": ["2xx", "4xx", "503"]}
_NOT_READY = {"include-path": "/readyz", "checks": {"not_a_server_error": _UNREADY, "positive_data_acceptance": _UNREADY}}
"""On a busy machine a gateway may be behind for a moment, and says so."""
_STAYS = {"include-path": "/v1/scheduled-payments/{scheduled_id}", "checks": {"use_after_free": {"enabled": False}}}
"""To delete it is to cancel it: it is shown as canceled."""


class Result(NamedTuple):
    """``reached``: operations that have done what a well-formed request asked for. ``story``: what schemathesis says."""

    operations: int
    reached: int
    cases: int
    failures: int
    story: str


@contextmanager
def database(kind: str) -> Iterator[dict[str, str]]:
    """Settings of a gateway with an empty database of a kind."""
    if kind == "sqlite":
        yield {}
        return
    programs = find_programs("psql")
    with running_server(programs) as socket:
        psql = [str(programs["psql"]), "-q", "-h", str(socket), "-U", USER, "-c", "CREATE DATABASE contract", "postgres"]
        subprocess.run(psql, check=True)
        yield {"database": f"postgresql://{USER}@/contract?host={socket}"}


def real_values(ann: Person, bob: Person, hook: str) -> dict[str, list[Any]]:
    """By name of a parameter or a body's field, as ``path.wallet_id`` or ``body.amount``: what Ann has, or may use."""
    ann.verify()
    purses = [ann.wallet(shard, USD="5000.00") for shard in (0, 1)]
    purse, till = purses[0], bob.wallet(1)
    paid = [ann.pay(purse, till["address"], "1.00", "for tea", wait=30).json()["id"] for _ in range(2)]
    bought = _made(ann, "/v1/purchases?wait=30", {"wallet_id": purse["id"], "asset": "USD", "amount": "50.00", "card": _CARD})
    cashed = {"wallet_id": purse["id"], "asset": "USD", "amount": "5.00", "iban": _IBAN, "name": "Ann Example"}
    out = _made(ann, "/v1/payouts?wait=30", cashed)
    back = _made(ann, "/v1/refunds?wait=30", {"purchase_id": bought["id"], "amount": "1.00"})
    asked = {"asset": "USD", "amount": "1.00", "capture_method": "automatic"}
    intents = [_made(bob, "/v1/payment-intents", asked | {"wallet_id": till["id"]}) for _ in range(3)]
    held = _made(ann, "/v1/payment-intents", asked | {"wallet_id": purse["id"], "capture_method": "manual"})
    _made(bob, "/v1/faucet?wait=30", {"wallet_id": till["id"], "asset": "USD", "amount": "900.00"})
    _made(bob, f"/v1/payment-intents/{held['id']}/confirm", {"from_wallet": till["id"]})
    sold = {"give": {"asset": "USD", "amount": "1.00"}, "want": {"asset": "VND", "amount": "100"}}
    offers = [_made(one, "/v1/exchanges", sold | {"wallet_id": kept["id"]}) for one, kept in ((ann, purse), (bob, till))]
    endpoint = _made(ann, "/v1/webhook-endpoints", {"url": hook, "events": ["*"]})
    ann.pay(purse, till["address"], "1.00", wait=30)
    deliveries = f"/v1/webhook-endpoints/{endpoint['id']}/deliveries"
    delivered = until(lambda: ann.get(deliveries).json()["items"], "a delivery")
    other = ann.http.post("/v1/auth/login", json={"email": ann.email, "password": PASSWORD}).json()
    for _ in range(3):
        ann.http.post("/v1/auth/login", json={"email": ann.email, "password": PASSWORD})
    sessions = [one["id"] for one in ann.get("/v1/sessions").json()["items"] if not one["current"]]
    keys = [_made(ann, "/v1/api-keys", {"name": f"key {number}", "scopes": ["read"]})["id"] for number in range(3)]
    plan = {"from_wallet": purse["id"], "to": till["address"], "asset": "USD", "amount": "0.10", "starts_at": _NEXT_YEAR}
    planned = [_made(ann, "/v1/scheduled-payments", plan)["id"] for _ in range(3)]
    csv = f"to,asset,amount\n{till['address']},USD,0.10\n".encode()
    filed = [_filed(ann, purse["id"], csv)["id"] for _ in range(3)]
    wallets = [one["id"] for one in purses]
    return {
        "path.wallet_id": wallets,
        "query.wallet_id": wallets,
        "body.wallet_id": wallets,
        "body.from_wallet": wallets,
        "body.default_wallet": wallets,
        "body.to": [till["address"], till["id"], bob.email, "somebody@example.org"],
        "body.legs[*].to": [till["address"], till["id"]],
        "body.asset": ["USD"],
        "body.legs[*].asset": ["USD"],
        "body.amount": ["0.10", "0.25", "1.00"],
        "body.legs[*].amount": ["0.10", "0.25"],
        "body.give.asset": ["USD"],
        "body.want.asset": ["VND", "USD"],
        "body.give.amount": ["0.10"],
        "body.want.amount": ["100"],
        "body.iban": [_IBAN],
        "body.card.number": [_CARD["number"], "4000 0000 0000 0002"],
        "body.card.cvc": [_CARD["cvc"]],
        "body.purchase_id": [bought["id"]],
        "body.payment_intent_id": [intents[0]["id"]],
        "body.url": [hook],
        "body.starts_at": [_NEXT_YEAR],
        "body.time_zone": ["UTC", "Europe/Berlin"],
        "body.refresh_token": [other["refresh_token"]],
        "path.transfer_id": paid,
        "path.address": [purse["address"], till["address"]],
        "path.purchase_id": [bought["id"]],
        "path.payout_id": [out["id"]],
        "path.refund_id": [back["id"]],
        "path.intent_id": [held["id"], *(one["id"] for one in intents)],
        "path.exchange_id": [one["id"] for one in offers],
        "path.endpoint_id": [endpoint["id"]],
        "path.delivery_id": [one["id"] for one in delivered],
        "path.scheduled_id": planned,
        "path.file_id": filed,
        "path.session_id": sessions,
        "path.key_id": keys,
        "path.shard": [0, 1],
        "path.height": [1, 2, 3],
        "query.wait": [0, 0.1],
        "query.asset": ["USD"],
        "query.from": ["2026-01-01", "2026-01-01T00:00:00Z"],
        "query.to": ["2099-01-01"],
        "query.counterparty": [till["address"]],
        "query.at": ["2026-01-01T00:00:00Z"],
        "query.after": ["0"],
        "header.last-event-id": ["0"],
    }


def _made(person: Person, path: str, body: Any) -> dict[str, Any]:
    answer = person.http.post(path, json=body)
    assert answer.status_code < 300, (path, answer.text)
    view: dict[str, Any] = answer.json()
    return view


def _filed(person: Person, wallet_id: str, csv: bytes) -> dict[str, Any]:
    kind = {"Content-Type": "text/csv"}
    answer = person.http.post("/v1/payment-files", content=csv, params={"wallet_id": wallet_id}, headers=kind)
    assert answer.status_code == 201, answer.text
    view: dict[str, Any] = answer.json()
    return view


def configuration(values: dict[str, list[Any]], person: Person, peer: Person, folder: Path) -> dict[str, Any]:
    """schemathesis.toml."""
    names = {where: where.replace(".", "_").replace("[*]", "") for where in values}
    users = [(one.http.headers["Authorization"], name) for one, name in ((person, "ann"), (peer, "bob"))]
    entries = [{"name": name, "fixedHeaders": [{"name": "Authorization", "value": bearer}]} for bearer, name in users]
    (folder / "auth.json").write_text(json.dumps({"auth": entries}))
    chances = {where: 1 if where in ("query.after", "header.last-event-id") else _MIXED_IN for where in values}
    return {
        "hooks": "tests.contract_checks",
        "dictionaries": {names[where]: {"values": found} for where, found in values.items()},
        "parameters": {where: {"dictionary": names[where], "probability": chance} for where, chance in chances.items()},
        "auth": {"wfc": {"path": str(folder / "auth.json"), "user": "ann", "peers": ["ann", "bob"]}},
        # A well-formed request is refused, too, if it makes no sense: with 422 and a code of its own. That this code is not
        # `invalid_request` is what tests/contract_checks.py looks at.
        "checks": {name: {"enabled": True} for name in _CHECKS} | {"positive_data_acceptance": {"expected-statuses": _SENSIBLE}},
        "operations": [*({"include-path": path, "checks": _UNHIDDEN} for path in _SHOWN_BY_ID), _NOT_READY, _STAYS],
        "max-stream-events": 1,
        "request-timeout": 40,
    }


def run(world: World, examples: int, seed: int, *more: str) -> Result:
    """schemathesis against a running gateway. ``more``: of its own options."""
    ann, bob = world.person(), world.person()
    with closing(Receiver()) as receiver, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = real_values(ann, bob, receiver.url)
        (folder / "schemathesis.toml").write_text(tomli_w.dumps(configuration(values, ann, bob, folder)))
        report = folder / "report.json"
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
        command += [f"{world.gateway.url}/openapi.json", "--continue-on-failure", "--warnings", "off"]
        command += ["--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none", "--no-color"]
        command += ["--report", "json", "--report-json-path", str(report), *more]
        environment = os.environ | {"PYTHONPATH": str(_ROOT)}
        done = subprocess.run(
            command, cwd=folder, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not report.exists():
            raise RuntimeError(done.stdout[-4000:])
        told = json.loads(report.read_text())
    rates = told["valid_rates"].values()
    reached = sum(any(phase["accepted"] for phase in phases.values()) for phases in rates)
    failures = told["test_cases"]["unique_failures"] + len(told["errors"])
    return Result(told["operations"]["tested"], reached, told["test_cases"]["generated"], failures, done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.contract", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--examples", type=int, default=100, metavar="N", help="cases made up for each operation")
    parser.add_argument("--seed", type=int, default=1)
    options, more = parser.parse_known_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = stack.enter_context(database(options.database))
        world = stack.enter_context(closing(World(folder, {**_LONG_LIVED, **settings})))
        world.start_gateway()
        result = run(world, options.examples, options.seed, *more)
    print(result.story)
    print(f"{options.database}: {result.operations} operations, {result.reached} of them with success", end=", ")
    print(f"{result.cases} cases, {result.failures} failures")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
