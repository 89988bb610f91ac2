"""Hostile input on every way in: transactions, broker topics, peers, ports. It is refused with the right code or ignored;
no process dies, no money moves, and payments go on.

Lies in perfect form - forged blocks, epochs, votes, bundles, refusals - are for ``tests/simulation``, the fuzzers, and the tests
of the client and the gateway: there each has its reason. Here is what only real processes can show.
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, NamedTuple

import pytest
import redis
import trio
from msgspec import structs

from node.network.connection import Connector, host_and_port
from node.protocol.amounts import parse_amount
from node.protocol.certificate import Vote, VoteKind
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate, read_key_file
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.messages import Ballot, BodyRequest, BundleRequest, ChainRequest, Standing
from node.protocol.queries import GetBlocks, Query
from node.protocol.reports import Notable, Report
from node.protocol.topics import (
    Refusals,
    TransactionBatch,
    blocks_topic,
    epoch_topic,
    queries_topic,
    refusals_topic,
    replies_topic,
    reports_topic,
    transactions_topic,
)
from node.protocol.transaction import Transaction, Witness
from tests.figures import NODE, changed
from tests.network.harness import Network
from tests.person import Person
from tests.waiting import trio_until, until

GARBAGE = {
    "nothing": b"",
    "a number": b"\x00",
    "random bytes": os.urandom(1000),
    "a megabyte of random bytes": os.urandom(1 << 20),
    "more than a body may have": bytes(20 << 20),
    "lists in lists": b"\x91" * 100_000,
    "a list of four billion": b"\xdd\xff\xff\xff\xff",
    "a string of four billion": b"\xc6\xff\xff\xff\xff",
    "a map": b"\x81\xa1a\x01",
}


class Customer(NamedTuple):
    """Somebody honest, who pays from shard 0 to both shards, and owns a key in each with money in the first."""

    person: Person
    payer: dict[str, Any]
    payees: tuple[dict[str, Any], dict[str, Any]]
    keys: tuple[KeyPair, KeyPair]
    own: dict[str, Any]

    def received(self) -> list[int]:
        """Cents, by payee."""
        return [parse_amount(self.person.balance(payee)[0], 2) for payee in self.payees]


@pytest.fixture(scope="module")
def customer(shared_network: Network) -> Customer:
    person, keys = shared_network.person(), (shared_network.key(0), shared_network.key(1))
    payees, own = (person.wallet(0), person.wallet(1)), person.own_wallet(keys[0].public, USD="10.00")
    return Customer(person, person.wallet(0, USD="1000.00"), payees, keys, own)


@contextmanager
def unharmed(network: Network, customer: Customer, but: str = "") -> Iterator[None]:
    """Afterwards every process (but this one) is the same, payments commit, and balances are what these payments made them."""
    before, received = network.pids(), customer.received()
    yield
    for payee in customer.payees:
        paid = customer.person.pay(customer.payer, payee["id"], "0.01", wait=30).json()
        assert paid["status"] == "committed", paid
    assert customer.received() == [cents + 1 for cents in received]
    assert network.pids() | {but: 0} == before | {but: 0}


# -- transactions ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def payment(network: Network, customer: Customer) -> Transaction:
    """2.50 USD to the other shard, not sent yet."""
    payer, payee = customer.keys
    return network.sign([payer], (payer, payee, "USD", 250))


def forged(transaction: Transaction) -> Transaction:
    """The same order, signed by somebody else in the payer's name."""
    witness = Witness(transaction.witnesses[0].public_key, generate().sign(transaction.id))
    return Transaction(transaction.order, (witness,))


def not_canonical(transaction: Transaction) -> bytes:
    """The same transaction in other bytes: a longer form of its outermost list's length."""
    return b"\xdc\x00\x02" + encode(transaction)[1:]


def verdict(network: Network, shard: int, encoded: bytes, transaction_id: bytes) -> Code:
    """Publish a transaction to a committee; the reason that f+1 of its members give, signed, for refusing it."""
    electorate, name = network.document.electorates[shard], network.genesis.network
    members: defaultdict[Code, set[int]] = defaultdict(set)
    with redis.Redis.from_url(network.devnet.broker_url) as client, client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(refusals_topic(name, shard))
        heard.get_message(timeout=1)
        client.publish(transactions_topic(name, shard), encode(TransactionBatch((encoded,))))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            message = heard.get_message(timeout=0.5)
            if message is None:
                continue
            refusals = decode(Refusals, message["data"], MAX_BROKER_BODY_BYTES)
            assert refusals.is_valid(electorate)
            for item in refusals.items:
                if item.transaction_id == transaction_id:
                    members[item.code].add(refusals.member)
                    if len(members[item.code]) > electorate.faults_tolerated:
                        return item.code
    raise AssertionError(f"not refused by f+1 members: {dict(members)}")


def test_members_refuse_bad_transactions_from_the_broker_with_the_right_code(
    network: Network, customer: Customer, payment: Transaction
) -> None:
    def other(**changes: Any) -> Transaction:
        return structs.replace(payment.order, **changes).sign(customer.keys)

    before = customer.person.balance(customer.own)
    bad = [
        (Code.BAD_SIGNATURE, forged(payment)),
        (Code.WRONG_NETWORK, other(network=bytes(8))),
        (Code.EXPIRED, other(valid_until=1)),
        (Code.LIMIT_EXCEEDED, other(valid_until=payment.order.valid_until + 3_600_000)),
    ]
    with unharmed(network, customer):
        for code, transaction in bad:
            assert verdict(network, 0, encode(transaction), transaction.id) == code
        assert verdict(network, 1, encode(payment), payment.id) == Code.WRONG_SHARD
        spoiled = not_canonical(payment)
        assert verdict(network, 0, spoiled, sha256(spoiled).digest()) == Code.MALFORMED
        assert customer.person.balance(customer.own) == before


def test_a_spoiled_copy_does_not_keep_the_good_transaction_out_and_a_replayed_one_pays_once(
    network: Network, customer: Customer, payment: Transaction
) -> None:
    encoded, person = encode(payment), customer.person
    before = parse_amount(person.balance(customer.own)[0], 2)
    with unharmed(network, customer):
        with redis.Redis.from_url(network.devnet.broker_url) as client:
            batch = encode(TransactionBatch((encode(forged(payment)), encoded) * 10))
            for _ in range(20):
                client.publish(transactions_topic(network.genesis.network, 0), batch)
        answer = person.post("/v1/transactions", {"transaction": encoded.hex()}, wait=30)
        assert (answer.status_code, answer.json()["status"]) == (200, "committed"), answer.text
        assert verdict(network, 0, encoded, payment.id) == Code.DUPLICATE
        again = person.post("/v1/transactions", {"transaction": encoded.hex()}, wait=5)
        assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
        assert parse_amount(person.balance(customer.own)[0], 2) == before - 250
        assert network.audit()["settled"]


# -- broker ------------------------------------------------------------------------------------------------------------------


def test_garbage_on_every_broker_channel_is_ignored(network: Network, customer: Customer) -> None:
    name = network.genesis.network
    per_shard = (transactions_topic, queries_topic, blocks_topic, refusals_topic)
    channels = [channel(name, shard) for channel in per_shard for shard in (0, 1)]
    with unharmed(network, customer), redis.Redis.from_url(network.devnet.broker_url) as client:
        replies = [channel.decode() for channel in client.pubsub_channels(replies_topic(name, "*"))]
        assert replies, "the gateway listens for answers"
        for channel in [*channels, *replies, epoch_topic(name), reports_topic(name)]:
            for body in GARBAGE.values():
                client.publish(channel, body)
        wrong = [Report("node-0", 2**53, changed(NODE, height="high", shard=-1, cpu_ms=float("nan")))]
        wrong += [Report(f"x{i}" * 50, 0, Notable("x" * 10_000)) for i in range(500)]
        for report in wrong:
            client.publish(reports_topic(name), encode(report))
        client.publish(transactions_topic(name, 0), encode(TransactionBatch(tuple(os.urandom(3000) for _ in range(4096)))))
        for member in range(-1, 200):
            client.publish(queries_topic(name, 0), encode(Query(os.urandom(16), "nobody", member, GetBlocks(2**53, 256))))
    assert customer.person.http.get(f"{network.devnet.dashboard_url}/healthz").status_code == 200


# -- peers and ports ---------------------------------------------------------------------------------------------------------


async def tell(network: Network, name: str, key: KeyPair, chunks: Sequence[bytes], told: set[str]) -> None:
    """Connect to a node or the coordinator as the owner of ``key``, again if need be, until it hears this, and then hangs up."""
    if name == "coordinator":
        public_key, address = network.genesis.coordinator_key, network.devnet.coordinator_address
    else:
        members = {member.name: member for committee in network.document.committees for member in committee.members}
        public_key, address = members[name].public_key, members[name].addresses[0]

    async def talk(peer: bytes, stream: Any) -> None:
        told.add(name)
        for chunk in chunks:
            await stream.write(chunk)
        while True:
            await stream.read(1 << 16)

    while name not in told:
        with suppress(Exception):  # hung up: refused, banned for a while, or had enough of it
            tcp = await trio.open_tcp_stream(*host_and_port(address))
            await Connector(key).converse(tcp, trio.CancelScope(deadline=trio.current_time() + 5), talk, dialed=public_key)
        await trio.sleep(0.2)


def frames_of(*messages: object) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in (encode(message) for message in messages))


def lies(network: Network, shard: int) -> list[object]:
    """Messages in perfect form that a member has no right to send, or that nobody should believe; and a flood of requests."""
    vote = Vote(VoteKind.FINALIZE, 2**53, bytes(32), 0, bytes(64))
    others = [structs.replace(vote, view=1, signer=signer) for signer in range(4)]
    requests = [ChainRequest(1), BodyRequest(1, bytes(32)), BundleRequest(1 - shard, 1)]
    return [Standing(2**53, 2**53, 2**53), *map(Ballot, [vote, *others]), *requests * 200]


async def test_a_stranger_gets_no_connection_and_a_hostile_member_does_no_harm(network: Network, customer: Customer) -> None:
    traitor, *peers = network.nodes(0)
    key, stranger = read_key_file(network.folder.home(traitor) / "key.pem"), generate()
    others, person = {*peers, network.nodes(1)[0]}, customer.person
    too_large = [(10 << 20).to_bytes(4, "big"), *[bytes(65_000)] * 160]
    garbage = [(1000).to_bytes(4, "big") + os.urandom(1000)]
    liar = [frames_of(message) for message in lies(network, 0)]

    with unharmed(network, customer, but=traitor):
        network.kill(traitor)
        async with trio.open_nursery() as nursery:
            told, heard_by_stranger = set[str](), set[str]()
            for name in others:
                nursery.start_soon(tell, network, name, key, liar, told)
                nursery.start_soon(tell, network, name, stranger, garbage, heard_by_stranger)
            await trio_until(lambda: told == others, "lies told")
            paid = await trio.to_thread.run_sync(lambda: person.pay(customer.payer, customer.own["id"], "0.05", wait=30))
            assert paid.json()["status"] == "committed"
            assert heard_by_stranger == set()
            nursery.cancel_scope.cancel()
        with trio.fail_after(60):
            await tell(network, "coordinator", stranger, too_large, set())  # which anyone may call, to register
            for chunks in (too_large, garbage):
                async with trio.open_nursery() as nursery:
                    told = set()
                    for name in others:
                        nursery.start_soon(tell, network, name, key, chunks, told)
        network.start(traitor)
        until(lambda: network.caught_up([traitor]), "the member is honest again, and welcome")
    network.check_health()


def test_random_bytes_and_half_open_connections_on_every_port(network: Network, customer: Customer) -> None:
    ports = network.devnet.ports
    indexes = range(network.devnet.nodes)
    of_nodes = [port(index) for port in (ports.node, ports.node_metrics) for index in indexes]
    listening = [*of_nodes, ports.coordinator, ports.coordinator_metrics, ports.gateway, ports.dashboard, ports.broker]
    idle: list[socket.socket] = []
    with unharmed(network, customer):
        for port in listening:
            for body in (b"\x00", os.urandom(100_000), b"\xff" * 70_000, b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x0f"):
                with suppress(ConnectionError, TimeoutError), socket.create_connection(("127.0.0.1", port), timeout=1) as stream:
                    stream.sendall(body)
        for port in (ports.node(0), ports.coordinator, ports.gateway):
            idle += [socket.create_connection(("127.0.0.1", port), timeout=2) for _ in range(200)]
            for stream in idle[-100:]:
                stream.sendall(b"\x13/multi" if port != ports.gateway else b"POST /v1/transfers HTTP/1.1\r\nContent-Le")
    # Payments went on while they were all open; nodes also let new peers in.
    with unharmed(network, customer, but="node-1"):
        network.kill("node-1")
        network.start("node-1")
        until(lambda: network.caught_up(["node-1"]), "a node connects although strangers hold connections")
    for stream in idle:
        stream.close()
