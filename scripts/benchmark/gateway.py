"""The gateway as people meet it: payments over HTTP, in a closed loop, by one client, by some and by many."""

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import httpx

from node.protocol.amounts import format_amount
from node.protocol.genesis import read_genesis
from scripts.benchmark import measure
from scripts.benchmark.checks import Cost, checks_timed
from scripts.benchmark.http_client import ACCEPTED, COMMITTED, Plan, Request, Seen, closed_loop
from scripts.benchmark.load import BenchError
from scripts.benchmark.network import Network
from scripts.benchmark.profile import profile_figures, sampled
from scripts.benchmark.report import cost_us, say, spread_ms
from scripts.devnet.customer import ASSET, DECIMALS, Customer, Purse
from scripts.devnet.layout import LOOPBACK
from scripts.devnet.up import answers_http

CLIENTS = (1, 32, 128)
ACCEPTING_CLIENTS = 32
"""Post without waiting for a final status: how fast the gateway takes payments in."""
CUSTOMERS = 8
WALLETS = 128
FUNDS = 100_000_000
PAYMENTS_PER_WALLET = 8
START_SECONDS = 90.0
SETTLE_SECONDS = 90.0
METRICS = "shardpay_gateway_"


class Wallet(NamedTuple):
    """A wallet and the token of who may pay from it."""

    purse: Purse
    authorization: str


def measure_gateway(network: Network, options: argparse.Namespace) -> dict[str, Any]:
    """R7 is that of the most clients. Raises BenchError, CustomerError, httpx.HTTPError, OSError."""
    wallets = funded_wallets(network)
    loops = []
    for clients in CLIENTS:
        say(f"{clients} clients over HTTP for {options.seconds:.0f} s ...")
        requests = payments(wallets, options.cross, network.devnet.ports.gateway, "?wait=30")
        loops.append(run_clients(network, clients, requests, options.seconds, COMMITTED))
    say(f"{ACCEPTING_CLIENTS} clients over HTTP that do not wait, for {options.seconds:.0f} s ...")
    requests = payments(wallets, options.cross, network.devnet.ports.gateway, "")
    accepting = run_clients(network, ACCEPTING_CLIENTS, requests, options.seconds, ACCEPTED)
    network.stop(*network.gateways)
    setting = {"processes": len(network.gateways), "database": "PostgreSQL" if options.postgresql else "SQLite"}
    return setting | {"waiting": loops, "accepting": accepting, "R7": loops[-1]["R7"]}


def funded_wallets(network: Network) -> list[Wallet]:
    """Of a gateway that is started unless it runs. Raises BenchError, CustomerError, httpx.HTTPError, OSError."""
    network.start(*network.gateways)
    for port in network.devnet.gateway_ports:
        _until(partial(answers_http, port, "/readyz"), START_SECONDS, "the gateway is not ready")
    say("customers register and are funded over HTTP ...")
    return open_wallets(network.devnet.gateway_url, read_genesis(network.devnet.folder.genesis).parameters.committees)


def open_wallets(url: str, shards: int) -> list[Wallet]:
    """As many in each shard, of a few customers, funded; shards take turns."""
    tag = f"{time.time_ns():x}"
    each = -(-WALLETS // (CUSTOMERS * shards))

    def open_some(index: int) -> list[Wallet]:
        customer = Customer(url, f"bench-{tag}-{index}")
        customer.open_wallets(list(range(shards)) * each, FUNDS)
        return [Wallet(purse, customer.authorization) for purse in customer.wallets]

    with ThreadPoolExecutor(CUSTOMERS) as pool:
        found = [wallet for some in pool.map(open_some, range(CUSTOMERS)) for wallet in some]
    by_shard = defaultdict[int, list[Wallet]](list)
    for wallet in found:
        by_shard[wallet.purse.shard].append(wallet)
    return [wallet for turn in zip(*by_shard.values(), strict=True) for wallet in turn]


def payments(wallets: Sequence[Wallet], cross: float, port: int, query: str) -> list[list[Request]]:
    """Requests of each wallet to others, a share ``cross`` of all to another shard."""
    purses = [wallet.purse for wallet in wallets]
    total = len(wallets) * PAYMENTS_PER_WALLET
    is_cross = [len({purse.shard for purse in purses}) > 1 and i < round(cross * total) for i in range(total)]
    random.shuffle(is_cross)
    kinds = iter(is_cross)
    return [[_request(wallet, purses, next(kinds), port, query) for _ in range(PAYMENTS_PER_WALLET)] for wallet in wallets]


def _request(wallet: Wallet, purses: Sequence[Purse], cross: bool, port: int, query: str) -> Request:
    payer = wallet.purse
    payee = random.choice([p for p in purses if p != payer and (p.shard != payer.shard) == cross])
    amount = format_amount(1, DECIMALS)
    body = json.dumps({"from_wallet": payer.id, "to": payee.address, "asset": ASSET, "amount": amount})
    head = f"POST /v1/transfers{query} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nAuthorization: {wallet.authorization}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return Request(cross, (head + body).encode())


def run_clients(network: Network, count: int, requests: Sequence[list[Request]], seconds: float, expected: str) -> dict[str, Any]:
    """A closed loop of ``count`` clients; each uses every ``count``-th wallet. Measured until all payments are final."""
    plan = Plan(network.devnet.ports.gateway, seconds, [[r for own in requests[i::count] for r in own] for i in range(count)])
    pids = network.pids(*network.gateways), network.pids(*network.devnet.node_names)
    finished, began = finished_transfers(network), time.monotonic()
    before = [measure.cpu_seconds(some) for some in pids]
    with checks_timed() as timed, sampled(network, *network.gateways) as profile:
        seen = closed_loop(plan)
        _until(lambda: not _metrics(network)["pending"], SETTLE_SECONDS, "payments are still under way")
    gateway, nodes = (measure.cpu_seconds(some) - used for some, used in zip(pids, before, strict=True))
    finished = finished_transfers(network) - finished
    figures = loop_figures(count, seen, expected, gateway, nodes, timed.cost, finished, time.monotonic() - began)
    if profile.seconds:
        figures["profile"] = profile_figures(profile.seconds, figures["gateway_cpu_us"])
    return figures


def loop_figures(
    count: int,
    seen: Seen,
    expected: str,
    gateway_cpu: float,
    nodes_cpu: float,
    check: Cost,
    finished: Counter[str],
    settled: float,
) -> dict[str, Any]:
    """Plain JSON values; CPU in microseconds a payment, latency in ms. Of clients that do not wait, ``committed_per_s`` is over
    all the ``settled`` seconds until the last payment was final."""
    done = max(1, seen.answers.get(expected, 0))
    taken = seen.in_time.get(ACCEPTED, 0) + seen.in_time.get(COMMITTED, 0)
    waited = seen.in_time.get(COMMITTED, 0) / seen.seconds
    unexpected = Counter({text: number for text, number in seen.answers.items() if text != expected})
    if expected == ACCEPTED:
        unexpected.update({status: number for status, number in finished.items() if status != COMMITTED and number})
    return {
        "clients": count,
        "accepted_per_s": round(taken / seen.seconds, 1),
        "committed_per_s": round(waited if expected == COMMITTED else finished[COMMITTED] / settled, 1),
        "latency_ms": {"intra": spread_ms(seen.intra), "cross": spread_ms(seen.cross)},
        "gateway_cpu_us": round(gateway_cpu / done * 1e6, 1),
        "nodes_cpu_us": round(nodes_cpu / done * 1e6, 1),
        "client_cpu_us": round(seen.cpu / done * 1e6, 1),
        "check_us": cost_us(check),
        "R7": round(gateway_cpu / done / check.median, 1),
        "unexpected": dict(unexpected),
    }


def finished_transfers(network: Network) -> Counter[str]:
    """How many the gateway has seen become final, by status."""
    values = _metrics(network)
    named = {
        name.partition('"')[2].partition('"')[0]: value for name, value in values.items() if name.startswith("finished_total{")
    }
    return Counter({status: int(value) for status, value in named.items()})


def _metrics(network: Network) -> dict[str, float]:
    """The gateway's own metrics, those of all its processes added up, by name without its prefix."""
    found = defaultdict[str, float](float)
    for port in network.devnet.gateway_ports:
        text = httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=10).raise_for_status().text
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(METRICS):
                found[name.removeprefix(METRICS)] += float(value)
    return found


def _until(done: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises BenchError."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} after {seconds:.0f} s")
        time.sleep(0.1)
