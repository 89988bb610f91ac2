"""Floods on every way in, on real processes: payments commit during and after each, and a node's memory grows within the
documented bounds of what the flood can fill.

Each prints a line of figures; ``pytest -s`` shows them.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import httpx
import pytest
import redis
import trio
from msgspec import structs

from node.bounds import bounds
from node.network.transport import Transport
from node.protocol import topics
from node.protocol.address import address_of
from node.protocol.block import Block, Totals
from node.protocol.bulletins import GetChange, GetSuccession, Successions
from node.protocol.certificate import Certificate, CertifiedBlock, FinalBlock, Finality, Vote, VoteKind, sign_vote
from node.protocol.chain import Chain
from node.protocol.change import Bulletin, Change, Register, RegisterPhase, Stage
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate, read_key_file
from node.protocol.limits import MAX_FRAME_BYTES, MAX_QUERY_BYTES
from node.protocol.messages import Ballot, BodyReply, Certified, ChainReply, Frame, PeerMessage, Proposal, Standing
from node.protocol.queries import EVERYONE, BlockList, GetAccount, GetBlocks, GetPending, GetStatus, Query
from node.protocol.topics import TransactionBatch
from node.protocol.transaction import Leg, Order, Transaction, Witness
from signaling.phases import MAX_MESSAGE_BYTES
from tests.network.caller import Line, call
from tests.network.harness import Network
from tests.person import Deal, deal
from tests.waiting import until

SECONDS = 5.0
"""Each flood, at least."""
BOUNDS = bounds(nodes=8, shards=2)
SLACK = 24 << 20
"""For what has nothing to do with the flood, bytes: garbage, blocks made meanwhile."""
CLIENT_BYTES = 64 << 20
"""By which the memory of whoever only listens may grow: what it has not read yet, and what it is just looking at."""
FROM_BROKER = ("messages from the broker", "transactions not looked at")


@pytest.fixture(scope="module")
def paying(shared_network: Network) -> Deal:
    return deal(shared_network.person, 0, 0, "100.00")


class Memory:
    """Resident memory of processes since this was made, by name."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        for pid in pids.values():
            with open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")  # forget the peak
        self._before = {name: _status(pid, "VmRSS") for name, pid in pids.items()}

    def grown(self) -> dict[str, int]:
        """The peak above what there was, MiB."""
        return {name: _status(pid, "VmHWM") - self._before[name] >> 10 for name, pid in self._pids.items()}


def _status(pid: int, field: str) -> int:
    """KiB."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


class Pace:
    """How far a shard's chain came since this was made, by what one of its nodes tells Prometheus."""

    def __init__(self, network: Network, name: str) -> None:
        self._url = network.devnet.metrics_url(network.devnet.node_names.index(name))
        self._before, self._began = self._read(), time.monotonic()

    def _read(self) -> dict[str, float]:
        text = httpx.get(self._url, timeout=20).text
        wanted = ("shardpay_height ", "shardpay_view_timeouts_total ")
        return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith(wanted)}

    def told(self) -> str:
        now, seconds = self._read(), time.monotonic() - self._began
        blocks, timeouts = (now[name] - self._before[name] for name in ("shardpay_height", "shardpay_view_timeouts_total"))
        return f"{blocks / seconds:.1f} blocks/s, {timeouts:.0f} view timeouts"


@contextmanager
def watched(network: Network, paying: Deal, what: str, filled: Collection[str], but: str = "") -> Iterator[Callable[[], None]]:
    """For a flood: gives a function that makes a payment in the middle of it; makes one after it, and checks that no node has
    grown by more than ``filled``, of the documented bounds."""
    pids = {name: pid for name, pid in network.pids().items() if name != but}
    memory, chain = Memory(pids), Pace(network, next(n for n in network.nodes(0) if n != but))
    seconds = list[float]()

    def pay() -> None:
        began = time.monotonic()
        assert paying.pay("0.01", wait=30)["status"] == "committed"
        seconds.append(time.monotonic() - began)

    yield pay
    during = chain.told()
    pay()
    grown = memory.grown()
    nodes = max(mib for name, mib in grown.items() if name.startswith("node"))
    bound = SLACK + sum(BOUNDS[name] for name in filled) >> 20
    rest = ", ".join(f"{name} +{mib}" for name, mib in grown.items() if not name.startswith("node"))
    *meanwhile, after = seconds
    print(f"\n{what}: nodes +{nodes} of {bound} MiB, {rest}; {during}; {len(meanwhile)} payments meanwhile, ", end="")
    print(f"the slowest in {max(meanwhile):.1f} s, one after in {after:.1f} s")
    assert nodes < bound
    assert {name: pid for name, pid in network.pids().items() if name != but} == pids


@contextmanager
def publishing(url: str, clients: int, messages: Callable[[int], list[tuple[str, bytes]]]) -> Iterator[None]:
    """Each client publishes the messages of 0, 1, 2, ... as fast as it can; says how many that were."""
    stop, published, began = threading.Event(), [0] * clients, time.monotonic()

    def flood(client_number: int) -> None:
        number = client_number
        client = redis.Redis.from_url(url)
        while not stop.is_set():
            with suppress(redis.RedisError):
                pipeline = client.pipeline(transaction=False)
                for topic, body in messages(number):
                    pipeline.publish(topic, body)
                published[client_number] += len(pipeline.execute())
            number += clients

    threads = [threading.Thread(target=flood, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        print(f"\n{sum(published) / (time.monotonic() - began):.0f} messages/s", end="")


def all_topics(network: Network) -> list[str]:
    name = network.genesis.network
    per_shard = (topics.transactions_topic, topics.queries_topic, topics.blocks_topic, topics.refusals_topic)
    of_chains = [topic(name, Chain(1, s)) for topic in per_shard for s in (0, 1)]
    of_all = (topics.epoch_topic, topics.reports_topic, topics.bulletins_topic, topics.asks_topic, topics.entries_topic)
    return [*of_chains, *(topic(name) for topic in of_all)]


def pay_all_the_while(pay: Callable[[], None], seconds: float = SECONDS) -> float:
    """How long the slowest of these payments took, s."""
    began, slowest = time.monotonic(), 0.0
    while (now := time.monotonic()) < began + seconds:
        pay()
        slowest = max(slowest, time.monotonic() - now)
    return slowest


def test_junk_on_every_topic(network: Network, paying: Deal) -> None:
    junk = (bytes(4 << 20), os.urandom(40))

    def messages(number: int) -> list[tuple[str, bytes]]:
        return [(topic, junk[number // 2 % 2]) for topic in all_topics(network)]

    with (
        watched(network, paying, "junk of 4 MiB and 40 bytes in turn on every topic", FROM_BROKER) as pay,
        publishing(network.devnet.broker_url, 2, messages),
    ):
        pay_all_the_while(pay)


def test_the_smallest_messages_as_fast_as_they_go(network: Network, paying: Deal) -> None:
    small = [
        (topic(network.genesis.network, Chain(1, 0)), b"") for topic in (topics.transactions_topic, topics.queries_topic)
    ] * 500
    with (
        watched(network, paying, "empty messages on the topics of a committee", FROM_BROKER) as pay,
        publishing(network.devnet.broker_url, 2, lambda _: small),
    ):
        pay_all_the_while(pay)


def test_transactions_with_one_bad_signature_of_16(network: Network, paying: Deal) -> None:
    keys = [network.key(0), *(network.key(1) for _ in range(15))]
    paying.ann.wallet(key=keys[0], USD="1.00")  # who holds nothing is refused before signatures are looked at
    payee = address_of(generate().public)
    legs = tuple(Leg(address_of(key.public), payee, "USD", 1) for key in keys)
    valid_until = time.time_ns() // 1_000_000 + 60_000

    def batch(number: int) -> bytes:
        some = []
        for count in range(20):
            salt = (number * 100 + count).to_bytes(8, "big")
            order = Order(network.document.network_id, legs, "x" * 140, valid_until, salt)
            *good, last = order.sign(keys).witnesses
            some.append(encode(Transaction(order, (*good, Witness(last.public_key, bytes(64))))))
        return encode(TransactionBatch(tuple(some)))

    topic, filled = topics.transactions_topic(network.genesis.network, Chain(1, 0)), (*FROM_BROKER, "transactions under check")
    with (
        watched(network, paying, "transactions with one bad signature of 16", filled) as pay,
        publishing(network.devnet.broker_url, 2, lambda number: [(topic, batch(number))]),
    ):
        pay_all_the_while(pay)


def test_queries_hold_up_no_payment(network: Network, paying: Deal) -> None:
    requests = (GetStatus(), GetBlocks(1, 256), GetAccount(bytes(20)), GetPending(1000))

    def messages(number: int) -> list[tuple[str, bytes]]:
        """Some of many clients', some of always the same."""
        found = []
        for count in range(200):
            client = os.urandom(16).hex() if count % 2 else "c"
            query = Query(os.urandom(16), client, count % 5 + EVERYONE, requests[count // 5 % len(requests)])
            body = encode(query)
            assert len(body) <= MAX_QUERY_BYTES
            found.append((topics.queries_topic(network.genesis.network, Chain(1, 0)), body))
        return found

    filled = (*FROM_BROKER, "blocks read for clients and peers", "messages to the broker")
    with watched(network, paying, "queries", filled) as pay:
        usual = pay_all_the_while(pay, seconds=1)
        with publishing(network.devnet.broker_url, 2, messages):
            # At most one was sent again, after two seconds; over one line for both the slowest took 3 to 30 s.
            assert pay_all_the_while(pay) < 2.4 + 5 * usual


def first_block(network: Network) -> CertifiedBlock:
    """Of shard 0, as a member gives it: after the flood of questions before it may take a moment."""

    def asked() -> Sequence[CertifiedBlock]:
        answer = client.answers(network.document.electorates[0], GetBlocks(1, 1), member=0).answer
        return answer.blocks if isinstance(answer, BlockList) else ()

    with network.client() as client:
        return until(asked, "a member answers")[0]


def forged_bulletins(network: Network) -> list[bytes]:
    """Of closing blocks and of the register, later than all there are, right but for their signatures; a block each, and some as
    large as may be."""
    true = first_block(network).block.header

    def forged(shard: int, number: int, path: int = 0) -> bytes:
        written = Register(RegisterPhase.CLOSED, 0, 0) if shard == 0 else None
        change = Change(Stage.CLOSED, document=os.urandom(32), closed=1 << 30, totals=Totals((), 0), register=written)
        electorate = network.document.electorates[shard]
        header = structs.replace(
            true, document=electorate.document, shard=shard, height=1 << 30, view=(1 << 30) + number, change_hash=change.hash
        )
        headers = [header]
        for _ in range(path):
            headers.append(structs.replace(header, height=headers[-1].height + 1, parent=headers[-1].hash, skip=headers[-1].hash))
        signatures = tuple(os.urandom(64) for _ in range(electorate.quorum))
        last = headers[-1]
        certificate = Certificate(VoteKind.FINALIZE, last.view, last.hash, tuple(range(electorate.quorum)), signatures)
        return encode(Bulletin(1, header, Finality(tuple(headers[1:]), certificate), change))

    large = encode(Successions(2, (os.urandom(MAX_FRAME_BYTES - 1000),)))
    return [*(forged(number % 2, number) for number in range(200)), forged(1, 0, 500), forged(0, 0, 500), large]


@pytest.mark.parametrize("kind", ["bulletins", "asks"])
def test_what_is_said_and_asked_of_the_change_of_epochs(network: Network, paying: Deal, kind: str) -> None:
    label = network.genesis.network
    asks = [encode(GetSuccession(number)) for number in range(2, 100)] + [encode(GetChange(1, shard)) for shard in (0, 1)] * 50
    bodies = forged_bulletins(network) if kind == "bulletins" else asks
    topic = topics.bulletins_topic(label) if kind == "bulletins" else topics.asks_topic(label)
    filled = (*FROM_BROKER, "bulletins not looked at", "asks and entries not looked at", "messages to the broker")
    memory = Memory({name: pid for name, pid in network.pids().items() if name in ("gateway", "dashboard", "coordinator")})
    with watched(network, paying, f"forged {kind}", filled) as pay:
        with publishing(network.devnet.broker_url, 2, lambda _: [(topic, body) for body in bodies]):
            pay_all_the_while(pay)
        until(lambda: httpx.get(f"{network.devnet.gateway_url}/readyz", timeout=5).status_code == 200, "the gateway is ready")
    assert max(memory.grown().values()) < CLIENT_BYTES >> 20


async def unfinished(address: str, public_key: bytes, size: int) -> None:
    """Strangers, one after the other, that connect, send half a frame of this size, and then a byte now and then."""

    async def talk(line: Line) -> None:
        await line.write(size.to_bytes(4, "big") + bytes(size - 1000))
        while True:
            await trio.sleep(0.5)
            await line.write(b"x")

    while True:
        with suppress(Exception):
            await call(generate(), public_key, address, talk, seconds=5)
        await trio.sleep(0.05)


async def test_strangers_with_unfinished_frames(network: Network, paying: Deal) -> None:
    coordinator, member = network.genesis.coordinator_key, network.document.committees[0].members[0]
    with watched(network, paying, "strangers with unfinished frames", ["handshakes"]) as pay:
        async with trio.open_nursery() as nursery:
            for size in (MAX_FRAME_BYTES, MAX_MESSAGE_BYTES) * 8:
                nursery.start_soon(unfinished, network.devnet.coordinator_address, coordinator, size)
                nursery.start_soon(unfinished, member.addresses[0], member.public_key, size)
            await trio.to_thread.run_sync(pay_all_the_while, pay)
            nursery.cancel_scope.cancel()


def stuffed(network: Network, shard: int, key: KeyPair, certified: CertifiedBlock, to: int) -> Iterator[bytes]:
    """Frames of a member for nodes of shard ``to``, each of another kind and as large as may be, again and again."""

    def framed(message: PeerMessage) -> bytes:
        return encode(Frame(1, to, message))

    electorate = network.document.electorates[shard]
    signer = electorate.keys.index(key.public)
    header = certified.block.header
    tiny = Certificate(VoteKind.NULLIFY, 1, bytes(32), (), ())
    many = tuple(os.urandom(8) for _ in range(1 << 16))
    large = tuple(os.urandom(4000) for _ in range(2000))
    view = header.view
    while True:
        for transactions in (many, large):
            view += 1
            forged = structs.replace(header, view=view, height=header.height + 1, proposer=signer)
            block = Block(forged, (), transactions)
            vote = sign_vote(key, signer, electorate, VoteKind.NOTARIZE, view, forged.hash)
            room = (MAX_FRAME_BYTES - len(encode(block)) - 2000) // 50
            yield framed(Proposal(block.compact(), vote, None, (tiny,) * min(room, 16_000)))
            yield framed(BodyReply(block))
            yield framed(ChainReply((FinalBlock(block, Finality((forged,) * 300, tiny)),)))
        yield framed(Certified((tiny,) * 8))
        yield from [framed(Ballot(Vote(VoteKind.NOTARIZE, view + n, os.urandom(32), signer, bytes(64)))) for n in range(500)]
        yield framed(Standing(view, view))
        yield os.urandom(MAX_FRAME_BYTES)


async def test_a_member_that_sends_all_it_can(network: Network, paying: Deal) -> None:
    traitor = network.nodes(0)[-1]
    key = read_key_file(network.folder.home(traitor) / "key.pem")
    block = first_block(network)
    network.kill(traitor)
    transport = Transport(key, "/ip4/127.0.0.1/tcp/0", lambda _: True)
    others = [m for committee in network.document.committees for m in committee.members if m.public_key != key.public]
    sent = 0

    async def flood(peer: bytes) -> None:
        nonlocal sent
        seat = network.document.seat_of(peer)
        assert seat is not None
        for frame in stuffed(network, 0, key, block, seat[0]):
            while not transport.send(peer, frame):  # noqa: ASYNC110  # a full queue does not tell when it is less so
                await trio.sleep(0.01)
            sent += len(frame)

    with watched(network, paying, "a member that sends all it can", BOUNDS, but=traitor) as pay:
        async with trio.open_nursery() as nursery:
            await nursery.start(transport.run)
            for member in others:
                transport.connect(member.public_key, member.addresses)
                nursery.start_soon(flood, member.public_key)
            await trio.to_thread.run_sync(pay_all_the_while, pay, 2 * SECONDS)
            nursery.cancel_scope.cancel()
    network.start(traitor)
    until(lambda: network.caught_up(traitor), "the member is honest again, and welcome")
    network.check_health()
