"""What must hold once everything has healed, checked against what customers were told; each violation is a line of text."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx

from node.protocol.address import decode_address
from node.protocol.amounts import format_amount
from node.protocol.queries import Account, GetAccount
from scripts.audit_money import AuditError, run
from scripts.devnet.client import Client, ClientError, devnet_client
from scripts.devnet.customer import ASSET, DECIMALS, Purse
from scripts.havoc.load import FINAL, FUNDS, Load
from scripts.havoc.network import Network

SHOWN = 3
AUDIT_SECONDS = 60.0
ASK_ROUNDS = 3

Views = Mapping[str, Mapping[str, Any]]


def check_payments(load: Load, views: Views, odd: list[str]) -> list[str]:
    """Nothing taken in is lost or undecided, nothing is there twice, nothing is taken back."""
    lost = [transfer_id for transfer_id in load.taken if transfer_id not in views]
    undecided = [
        f"{transfer_id} is {views[transfer_id]['status']}"
        for transfer_id in load.taken
        if transfer_id in views and views[transfer_id]["status"] not in FINAL
    ]
    taken_back = [
        f"{transfer_id} is {views[transfer_id]['status']}"
        for transfer_id in load.committed
        if transfer_id in views and views[transfer_id]["status"] != "committed"
    ]
    return [
        *_counted("payments lost", lost),
        *_counted("payments not decided", undecided),
        *_counted("payments that nobody sent, or twice in a history", odd),
        *_counted("payments once committed, now something else", taken_back),
        *_counted("wrong answers of the gateway", load.wrong),
    ]


def expected_balances(load: Load, views: Views) -> dict[Purse, int]:
    """What each wallet holds when exactly the committed payments happened, each once."""
    expected = {wallet: FUNDS for customer in load.customers for wallet in customer.wallets}
    for transfer_id, payment in load.taken.items():
        if transfer_id in views and views[transfer_id]["status"] == "committed":
            expected[payment.payer] -= payment.units
            expected[payment.payee] += payment.units
    return expected


def check_balances(load: Load, views: Views, network: Network) -> tuple[list[str], int]:
    """Every wallet at the gateway, and at every node that answers; and how many answers of nodes were compared."""
    expected = expected_balances(load, views)
    wrong, compared = [], 0
    try:
        shown = load.balances()
        with devnet_client(network.devnet) as client:
            told = {wallet: _ask(client, wallet) for wallet in expected}
    except (httpx.HTTPError, ClientError) as error:
        return _counted("balances cannot be compared", [str(error)]), 0
    for wallet, units in expected.items():
        if not told[wallet]:
            wrong.append(f"no node says what {wallet.address} holds")
        compared += len(told[wallet])
        for where, (available, held) in {"the gateway": shown[wallet], **told[wallet]}.items():
            if (available, held) != (units, 0):
                wrong.append(
                    f"{wallet.address} (shard {wallet.shard}) at {where}: {format_amount(available, DECIMALS)} available, "
                    f"{format_amount(held, DECIMALS)} held; {format_amount(units, DECIMALS)} expected"
                )
    return _counted("balances wrong, or money held", wrong), compared


def _ask(client: Client, wallet: Purse) -> dict[str, tuple[int, int]]:
    """(available, held) by member, as text."""
    address = decode_address(wallet.address)
    for _ in range(ASK_ROUNDS):
        document = client.document()
        electorate = document.electorates[document.shards.shard_of(address)]
        answers = client.answers(electorate, GetAccount(address)).answers
        found = {}
        for member, answer in answers.items():
            if isinstance(answer, Account):
                balance = dict(answer.balances).get(ASSET)
                found[f"member {member}"] = (balance.available, balance.held) if balance else (0, 0)
        if found:
            return found
    return {}


def check_audit(network: Network) -> tuple[list[str], dict[str, Any]]:
    """What ``scripts/audit`` finds."""
    try:
        result = run(network.folder, AUDIT_SECONDS)
    except (AuditError, ClientError, OSError) as error:
        return [f"audit: {error}"], {}
    wrong = [f"audit: money is not conserved: {result['assets']}"] if result["conserved"] is False else []
    wrong += [f"audit: {text}" for text in result["boundaries"]]
    if not result["settled"]:
        wrong.append(f"audit: {result['pending']} transactions are still under way")
    return wrong, result


def commit_times(load: Load, views: Views) -> dict[int, list[float]]:
    """When the payments from each shard committed, in seconds since 1970, in order. Shards as they were in the beginning."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for transfer_id, view in views.items():
        if view["status"] == "committed" and transfer_id in load.taken:
            moment = datetime.fromisoformat(view["finalized_at"]).timestamp()
            times[load.taken[transfer_id].payer.shard].append(moment)
    return {shard: sorted(moments) for shard, moments in times.items()}


def longest_pause(times: Mapping[int, list[float]], start: float, end: float) -> float:
    """The longest time within [start, end] that some shard was without a committed payment."""
    longest = 0.0
    for moments in times.values() or [[]]:
        inside = [start, *(moment for moment in moments if start < moment < end), end]
        longest = max(longest, *(b - a for a, b in pairwise(inside)))
    return longest


def count_outcomes(views: Views) -> tuple[Counter[str], Counter[str]]:
    """Payments by status, and by the reason they did not happen for."""
    return Counter(v["status"] for v in views.values()), Counter(v["code"] for v in views.values() if v["code"])


def _counted(what: str, cases: list[str]) -> list[str]:
    more = f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
    return [f"{what}: {len(cases)}: {'; '.join(cases[:SHOWN])}{more}"] if cases else []
