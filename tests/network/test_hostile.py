"""Hostile input on every way in: transactions, broker topics, peers, ports. It is refused with the right code or ignored;
no process dies, no money moves, and payments go on.

Lies in perfect form - forged blocks, epochs, votes, bundles, refusals - are for ``tests/simulation``, the fuzzers, and the tests
of the client and the gateway: there each has its reason, as rules broken by transactions have in those of the ledger. Here is
what only real processes can show.
"""

import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from typing import Any

import httpx
import pytest
import redis
import trio
from msgspec import structs

from node.protocol import topics
from node.protocol.amounts import parse_amount
from node.protocol.certificate import Vote, VoteKind
from node.protocol.chain import Chain
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate, read_key_file
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.messages import Ballot, BodyRequest, BundleRequest, ChainRequest, Frame, PeerMessage, Standing
from node.protocol.queries import GetBlocks, Query
from node.protocol.reports import Notable, Report
from node.protocol.transaction import Transaction, Witness
from tests.figures import NODE, changed
from tests.network.caller import Line, call
from tests.network.harness import Network
from tests.person import Deal, Person, deal
from tests.waiting import trio_until, until

GARBAGE = {
    "nothing": b"",
    "a number": b"\x00",
    "random bytes": os.urandom(1000),
    "a megabyte of random bytes": os.urandom(1 << 20),
    "as much as the broker takes": bytes(MAX_BROKER_BODY_BYTES),
    "lists in lists": b"\x91" * 100_000,
    "a list of four billion": b"\xdd\xff\xff\xff\xff",
    "a string of four billion": b"\xc6\xff\xff\xff\xff",
    "a map": b"\x81\xa1a\x01",
}


@pytest.fixture(scope="module")
def deals(shared_network: Network) -> tuple[Deal, Deal]:
    """Honest people, who pay inside a shard and across."""
    inside, across = (deal(shared_network.person, 0, other, "100.00") for other in (0, 1))
    return inside, across


Unharmed = Callable[..., Any]


@pytest.fixture
def unharmed(network: Network, deals: tuple[Deal, Deal]) -> Unharmed:
    """For a ``with`` block: afterwards every process (but one) is the same, payments commit, and money is where they took it."""

    @contextmanager
    def watch(but: str = "") -> Iterator[None]:
        def cents() -> list[int]:
            return [parse_amount(amount, 2) for one in deals for amount in one.available()]

        processes, before = network.pids(), cents()
        yield
        assert [one.pay("0.01", wait=30)["status"] for one in deals] == ["committed"] * 2
        assert [after - earlier for after, earlier in zip(cents(), before, strict=True)] == [-1, 1, -1, 1]
        assert network.pids() | {but: 0} == processes | {but: 0}

    return watch


@pytest.fixture
def broker(network: Network) -> Iterator[Any]:
    with redis.Redis.from_url(network.devnet.broker_url) as client:
        yield client


def verdict(network: Network, broker: Any, shard: int, encoded: bytes, named: bytes) -> Code:
    """Publish a transaction to a committee; the reason that f+1 of its members give, signed, for refusing what is so named."""
    electorate, name = network.document.electorates[shard], network.genesis.network
    members: defaultdict[Code, set[int]] = defaultdict(set)

    def agreed() -> Code | None:
        message = heard.get_message(timeout=0.5)
        if message is not None:
            refusals = decode(topics.Refusals, message["data"], MAX_BROKER_BODY_BYTES)
            assert refusals.is_valid(electorate)
            for item in refusals.items:
                if item.transaction_id == named:
                    members[item.code].add(refusals.member)
        return next((code for code, who in members.items() if len(who) > electorate.faults_tolerated), None)

    with broker.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(topics.refusals_topic(name, Chain(1, shard)))
        heard.get_message(timeout=20)  # until it is subscribed
        broker.publish(topics.transactions_topic(name, Chain(1, shard)), encode(topics.TransactionBatch((encoded,))))
        code = until(agreed, "refused by f+1 members")
    assert code is not None
    return code


def test_bad_transactions_are_refused_keep_no_good_one_out_and_a_replayed_one_pays_once(
    network: Network, broker: Any, unharmed: Unharmed, person: Callable[[], Person]
) -> None:
    keys, ann = (network.key(0), network.key(1)), person()
    purse = ann.wallet(key=keys[0], USD="10.00")
    payment = network.sign([keys[0]], (*keys, "USD", 250))
    encoded = encode(payment)
    forged = encode(Transaction(payment.order, (Witness(keys[0].public, generate().sign(payment.id)),)))
    spoiled = b"\xdc\x00\x02" + encoded[1:]  # a longer form of the outermost list's length: not canonical
    with unharmed():
        assert verdict(network, broker, 0, forged, payment.id) == Code.BAD_SIGNATURE
        assert verdict(network, broker, 1, encoded, payment.id) == Code.WRONG_SHARD
        assert verdict(network, broker, 0, spoiled, sha256(spoiled).digest()) == Code.MALFORMED
        assert ann.balance(purse) == ("10.00", "0.00")
        batch = encode(topics.TransactionBatch((forged, encoded) * 10))
        for _ in range(20):
            broker.publish(topics.transactions_topic(network.genesis.network, Chain(1, 0)), batch)
        answers = [ann.post("/v1/transactions", {"transaction": encoded.hex()}, wait=30) for _ in range(2)]
        assert {(a.status_code, a.json()["status"], a.json()["id"]) for a in answers} == {(200, "committed", payment.id.hex())}
        assert verdict(network, broker, 0, encoded, payment.id) == Code.DUPLICATE
        assert ann.balance(purse) == ("7.50", "0.00")
        assert network.audit()["settled"]


def test_garbage_on_every_broker_channel_is_ignored(network: Network, broker: Any, unharmed: Unharmed) -> None:
    name = network.genesis.network
    per_shard = (topics.transactions_topic, topics.queries_topic, topics.blocks_topic, topics.refusals_topic)
    channels = [topic(name, Chain(1, shard)) for topic in per_shard for shard in (0, 1)]
    with unharmed():
        replies = [topic.decode() for topic in broker.pubsub_channels(topics.replies_topic(name, "*"))]
        assert replies, "the gateway listens for answers"
        for topic in [*channels, *replies, topics.epoch_topic(name), topics.reports_topic(name)]:
            for body in GARBAGE.values():
                broker.publish(topic, body)
        wrong = [Report("node-0", 2**53, changed(NODE, height="high", shard=-1, cpu_ms=float("nan")))]
        wrong += [Report(f"x{i}" * 50, 0, Notable("x" * 10_000)) for i in range(500)]
        for report in wrong:
            broker.publish(topics.reports_topic(name), encode(report))
        batch = topics.TransactionBatch(tuple(os.urandom(3000) for _ in range(4096)))
        broker.publish(topics.transactions_topic(name, Chain(1, 0)), encode(batch))
        for member in range(-1, 200):
            query = Query(os.urandom(16), "nobody", member, GetBlocks(2**53, 256))
            broker.publish(topics.queries_topic(name, Chain(1, 0)), encode(query))
    assert httpx.get(f"{network.devnet.dashboard_url}/healthz").status_code == 200


async def tell(network: Network, name: str, key: KeyPair, chunks: Sequence[bytes], told: set[str]) -> None:
    """Connect to a node or the coordinator as the owner of ``key``, again if need be, until it hears this, and then hangs up."""
    if name == "coordinator":
        public_key, address = network.genesis.coordinator_key, network.devnet.coordinator_address
    else:
        members = {member.name: member for committee in network.document.committees for member in committee.members}
        public_key, address = members[name].public_key, members[name].addresses[0]

    async def talk(line: Line) -> None:
        told.add(name)
        for chunk in chunks:
            await line.write(chunk)
        await trio.sleep_forever()

    while name not in told:
        with suppress(Exception):  # hung up: refused, banned for a while, or had enough of it
            await call(key, public_key, address, talk, seconds=5)
        await trio.sleep(0.2)


def frames_of(shard: int, messages: Sequence[PeerMessage]) -> list[bytes]:
    """For nodes of this shard."""
    frames = [encode(Frame(1, shard, message)) for message in messages]
    return [len(frame).to_bytes(4, "big") + frame for frame in frames]


def lies(network: Network, shard: int) -> list[PeerMessage]:
    """Messages in perfect form that a member has no right to send, or that nobody should believe; and a flood of requests."""
    vote = Vote(VoteKind.FINALIZE, 2**53, bytes(32), 0, bytes(64))
    others = [structs.replace(vote, view=1, signer=signer) for signer in range(4)]
    requests: list[PeerMessage] = [ChainRequest(1), BodyRequest(1, bytes(32)), BundleRequest(1 - shard, 1)]
    return [Standing(2**53, 2**53), *map(Ballot, [vote, *others]), *requests * 200]


async def test_a_stranger_gets_no_connection_and_a_hostile_member_does_no_harm(
    network: Network, unharmed: Unharmed, person: Callable[[], Person]
) -> None:
    meanwhile = deal(person, 0, 0)
    traitor, *peers = network.nodes(0)
    key, stranger = read_key_file(network.folder.home(traitor) / "key.pem"), generate()
    others = {*peers, network.nodes(1)[0]}
    too_large = [(10 << 20).to_bytes(4, "big"), *[bytes(65_000)] * 160]
    garbage = [(1000).to_bytes(4, "big") + os.urandom(1000)]
    liar = {name: frames_of(0 if name in peers else 1, lies(network, 0)) for name in others}

    with unharmed(but=traitor):
        network.kill(traitor)
        async with trio.open_nursery() as nursery:
            told, heard_by_stranger = set[str](), set[str]()
            for name in others:
                nursery.start_soon(tell, network, name, key, liar[name], told)
                nursery.start_soon(tell, network, name, stranger, garbage, heard_by_stranger)
            await trio_until(lambda: told == others, "lies told")
            paid = await trio.to_thread.run_sync(lambda: meanwhile.pay("0.05", wait=30))
            assert paid["status"] == "committed"
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
        until(lambda: network.caught_up(traitor), "the member is honest again, and welcome")
    network.check_health()


def test_random_bytes_and_half_open_connections_on_every_port(network: Network, unharmed: Unharmed) -> None:
    ports, indexes = network.devnet.ports, range(network.devnet.nodes)
    of_nodes = [port(index) for port in (ports.node, ports.node_metrics) for index in indexes]
    listening = [*of_nodes, ports.coordinator, ports.coordinator_metrics, ports.gateway, ports.dashboard, ports.broker]
    with ExitStack() as idle:
        with unharmed():
            for port in listening:
                for body in (b"\x00", os.urandom(100_000), b"\xff" * 70_000, b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x0f"):
                    with (
                        suppress(ConnectionError, TimeoutError),
                        socket.create_connection(("127.0.0.1", port), timeout=1) as stream,
                    ):
                        stream.sendall(body)
            for port in (ports.node(0), ports.coordinator, ports.gateway):
                half = b"\x13/multi" if port != ports.gateway else b"POST /v1/transfers HTTP/1.1\r\nContent-Le"
                for number in range(200):
                    idler = idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                    idler.sendall(half if number >= 100 else b"")
        # Payments went on while they were all open; nodes also let new peers in.
        with unharmed(but="node-1"):
            network.kill("node-1")
            network.start("node-1")
            until(lambda: network.caught_up("node-1"), "a node connects although strangers hold connections")
