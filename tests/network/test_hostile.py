"""Hostile input on every way in: transactions, broker channels, peers, ports. It is refused with the right code or ignored;
no process dies, no money moves, and payments go on."""

import os
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import chain
from typing import Any, NamedTuple

import pytest
import redis
import trio
from msgspec import structs

from node.network.connection import Connector, host_and_port
from node.network.transport import BAN_SECONDS
from node.protocol import merkle
from node.protocol.address import decode_address
from node.protocol.block import Balance, BalanceChange, Changes, Effects, Outcome, Receipt
from node.protocol.certificate import CertifiedBlock, FinalBlock, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Decision
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair, digest
from node.protocol.epoch import Announcement, Committee, PhaseNotice, SignedDocument
from node.protocol.genesis import Phase
from node.protocol.keys import generate, read_key_file
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    BundleDelivery,
    BundleRequest,
    Certified,
    ChainReply,
    ChainRequest,
    Proposal,
    Standing,
)
from node.protocol.queries import BlockList, GetBlocks, Query
from node.protocol.reports import Notable, Report
from node.protocol.topics import (
    Refusal,
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
from tests.network.harness import Network, Treasury, User, Wallet, eventually

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
    """Somebody honest, who pays from shard 0 to both shards."""

    user: User
    payer: Wallet
    payees: tuple[Wallet, Wallet]


@pytest.fixture(scope="module")
def customer(network: Network) -> Customer:
    user = network.user("customer")
    return Customer(user, user.wallet(0, USD="1000.00"), (user.wallet(0), user.wallet(1)))


@contextmanager
def unharmed(network: Network, customer: Customer, but: str = "") -> Iterator[None]:
    """Afterwards every process (but this one) is the same, payments commit, and balances are what these payments made them."""
    before, balances = network.pids(), [int(customer.user.balance(payee)[0].replace(".", "")) for payee in customer.payees]
    yield
    for payee in customer.payees:
        paid = customer.user.pay(customer.payer, payee.id, "0.01")
        assert paid["status"] == "committed", paid
    after = [int(customer.user.balance(payee)[0].replace(".", "")) for payee in customer.payees]
    assert after == [balance + 1 for balance in balances]
    assert {n: p for n, p in network.pids().items() if n != but} == {n: p for n, p in before.items() if n != but}


# -- transactions ------------------------------------------------------------------------------------------------------------


class Signer(NamedTuple):
    """A key in each shard, with money in the first."""

    treasury: Treasury
    payer: KeyPair
    wallet: Wallet
    payee: KeyPair

    def payment(self, cents: int = 100) -> Transaction:
        return self.treasury.sign([self.payer], (self.payer, self.payee, "USD", cents))


@pytest.fixture(scope="module")
def signer(network: Network, customer: Customer) -> Signer:
    treasury = Treasury(network, customer.user)
    (payer, wallet), (payee, _) = treasury.key(0, USD="10.00"), treasury.key(1)
    return Signer(treasury, payer, wallet, payee)


def forged(transaction: Transaction) -> Transaction:
    """The same order, signed by somebody else in the payer's name."""
    witness = Witness(transaction.witnesses[0].public_key, generate().sign(transaction.id))
    return Transaction(transaction.order, (witness,))


def not_canonical(transaction: Transaction) -> bytes:
    """The same transaction in other bytes: a longer form of its outermost list's length."""
    return b"\xdc\x00\x02" + encode(transaction)[1:]


def verdict(network: Network, shard: int, encoded: bytes, id: bytes) -> Code:
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
                if item.transaction_id == id:
                    members[item.code].add(refusals.member)
                    if len(members[item.code]) > electorate.faults_tolerated:
                        return item.code
    raise AssertionError(f"not refused by f+1 members: {dict(members)}")


def test_members_refuse_bad_transactions_from_the_broker_with_the_right_code(
    network: Network, customer: Customer, signer: Signer
) -> None:
    payment = signer.payment()
    other_network = structs.replace(payment.order, network=bytes(8)).sign([signer.payer])
    late = structs.replace(payment.order, valid_until=1).sign([signer.payer])
    early = structs.replace(payment.order, valid_until=payment.order.valid_until + 3_600_000).sign([signer.payer])
    with unharmed(network, customer):
        assert verdict(network, 0, encode(forged(payment)), payment.id) == Code.BAD_SIGNATURE
        assert verdict(network, 1, encode(payment), payment.id) == Code.WRONG_SHARD
        spoiled = not_canonical(payment)
        assert verdict(network, 0, spoiled, sha256(spoiled).digest()) == Code.MALFORMED
        assert verdict(network, 0, encode(other_network), other_network.id) == Code.WRONG_NETWORK
        assert verdict(network, 0, encode(late), late.id) == Code.EXPIRED
        assert verdict(network, 0, encode(early), early.id) == Code.LIMIT_EXCEEDED
        assert customer.user.balance(signer.wallet) == ("10.00", "0.00")


def test_a_spoiled_copy_does_not_keep_the_good_transaction_out_and_a_replayed_one_pays_once(
    network: Network, customer: Customer, signer: Signer
) -> None:
    payment, name = signer.payment(250), network.genesis.network
    encoded = encode(payment)
    before = float(customer.user.balance(signer.wallet)[0])
    with unharmed(network, customer):
        with redis.Redis.from_url(network.devnet.broker_url) as client:
            for _ in range(20):
                client.publish(transactions_topic(name, 0), encode(TransactionBatch((encode(forged(payment)), encoded) * 10)))
        answer = customer.user.post("/v1/transactions?wait=30", {"transaction": encoded.hex()})
        assert (answer.status_code, answer.json()["status"]) == (200, "committed"), answer.text
        assert verdict(network, 0, encoded, payment.id) == Code.DUPLICATE
        again = customer.user.post("/v1/transactions?wait=5", {"transaction": encoded.hex()})
        assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
        assert float(customer.user.balance(signer.wallet)[0]) == before - 2.5
        assert network.audit()["settled"]


def test_the_api_refuses_bad_transactions_with_problem_documents(network: Network, customer: Customer, signer: Signer) -> None:
    payment = signer.payment()
    expected = {
        "bad_signature": encode(forged(payment)).hex(),
        "malformed": not_canonical(payment).hex(),
        "wrong_network": encode(structs.replace(payment.order, network=bytes(8)).sign([signer.payer])).hex(),
        "expired": encode(structs.replace(payment.order, valid_until=1).sign([signer.payer])).hex(),
        "limit_exceeded": encode(structs.replace(payment.order, valid_until=2**53).sign([signer.payer])).hex(),
        "invalid_request": "00" * 5000,
    }
    with unharmed(network, customer):
        for code, transaction in expected.items():
            answer = customer.user.post("/v1/transactions?wait=5", {"transaction": transaction})
            assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
        for body, statuses in ((b"\xff\x00{", (400, 422)), (b"[" * 60_000, (400, 422)), (os.urandom(10 << 20), (413,))):
            answer = customer.user.http.post("/v1/transactions", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in statuses, answer.text[:300]
            assert answer.headers["content-type"] == "application/problem+json"


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
    assert customer.user.http.get(f"{network.devnet.dashboard_url}/healthz").status_code == 200


def test_a_forged_epoch_is_not_believed(network: Network, customer: Customer) -> None:
    genesis, document, impostor = network.genesis, network.document, generate()
    a, b = document.committees
    swapped = structs.replace(document, committees=(Committee(0, a.first, b.members), Committee(1, b.first, a.members)))
    before = customer.user.get("/v1/network")
    with unharmed(network, customer), redis.Redis.from_url(network.devnet.broker_url) as client:
        for forgery in (swapped, structs.replace(document, number=2)):
            for phase in (Phase.REGISTRATION, Phase.SETTLEMENT):
                notice = PhaseNotice(genesis.network, forgery.number, phase, 2**53, 8).signed(impostor)
                signed = SignedDocument(forgery, impostor.sign(forgery.hash))
                client.publish(epoch_topic(genesis.network), encode(Announcement(notice, signed)))
        after = customer.user.get("/v1/network")
        assert (after["epoch"], after["phase"]) == (before["epoch"], before["phase"]) == (1, "mining")
        for old, new in zip(before["committees"], after["committees"], strict=True):
            assert [member["public_key"] for member in new["members"]] == [m["public_key"] for m in old["members"]]


class Forger:
    """ChainReply that nobody agreed on, which make a wallet rich."""

    def __init__(self, network: Network, shard: int, address: bytes, key: KeyPair) -> None:
        self.electorate = network.document.electorates[shard]
        heights = [node["height"] for node in network.status()["nodes"] if node["shard"] == shard]
        with network.client() as client:
            answer = client.answers(shard, GetBlocks(min(filter(None, heights)), 1), 1).answer
        assert isinstance(answer, BlockList)
        self.tip = answer.blocks[0]
        self._keys = [key, *(generate() for _ in self.electorate.keys[1:])]
        self._riches = Changes((BalanceChange(address, "USD", Balance(10**12)),), bytes(32))

    def finality(self, hash: bytes, view: int) -> Finality:
        """A certificate with a quorum of signatures, none (but one) by a member."""
        strangers = structs.replace(self.electorate, keys=tuple(key.public for key in self._keys))
        votes = [sign_vote(key, signer, self.electorate, VoteKind.FINALIZE, view, hash) for signer, key in enumerate(self._keys)]
        return Finality((), make_certificate(votes, strangers))

    def blocks(self) -> list[CertifiedBlock]:
        old, effects = self.tip.block.header, structs.replace(self.tip.effects, changes=self._riches)
        receipt = Receipt(digest("no transaction"), Outcome.COMMITTED)
        effects = Effects((receipt,), self._riches, effects.totals)
        header = structs.replace(
            old,
            view=old.view + 1,
            height=old.height + 1,
            parent=old.hash,
            receipts_root=merkle.root([encode(receipt)]),
            changes_hash=self._riches.hash(),
            payload_root=merkle.root([]),
        )
        block = structs.replace(self.tip.block, header=header, bundles=(), transactions=())
        assert effects.match(header), "nothing but the certificate is wrong"
        certificate = self.finality(header.hash, header.view)
        empty = structs.replace(certificate.certificate, signers=(), signatures=())
        return [
            CertifiedBlock(block, certificate, effects),
            CertifiedBlock(block, Finality((), empty), effects),
            CertifiedBlock(block, self.tip.finality, effects),
            CertifiedBlock(self.tip.block, self.tip.finality, effects),
        ]


def exists(user: User, path: str) -> bool:
    return user.http.get(path).status_code == 200


def test_a_forged_block_is_not_believed(network: Network, customer: Customer) -> None:
    for shard, payee in enumerate(customer.payees):
        forger = Forger(network, shard, decode_address(payee.address), generate())
        with unharmed(network, customer), redis.Redis.from_url(network.devnet.broker_url) as client:
            for block in forger.blocks():
                client.publish(blocks_topic(network.genesis.network, shard), encode(block))
            height = forger.tip.block.header.height + 1
            place = f"/v1/blocks/{shard}/{height}"
            eventually(partial(exists, customer.user, place), "the next block")
            shown = customer.user.get(place)
            assert shown["hash"] != forger.blocks()[0].block.header.hash.hex()


# -- peers and ports ---------------------------------------------------------------------------------------------------------


async def call(network: Network, name: str, key: KeyPair, talk: Callable[[bytes, Any], Awaitable[None]]) -> None:
    """Connect to a node or the coordinator as the owner of ``key``, and ``talk``."""
    if name == "coordinator":
        public_key, address = network.genesis.coordinator_key, network.devnet.coordinator_address
    else:
        members = {member.name: member for committee in network.document.committees for member in committee.members}
        public_key, address = members[name].public_key, members[name].addresses[0]
    tcp = await trio.open_tcp_stream(*host_and_port(address))
    await Connector(key).converse(tcp, trio.CancelScope(deadline=trio.current_time() + 5), talk, dialed=public_key)


def frames_of(*messages: object) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in (encode(message) for message in messages))


def lies(network: Network, shard: int, key: KeyPair, member: int) -> list[object]:
    """Messages in perfect form that a member has no right to send, or that nobody should believe."""
    forger = Forger(network, shard, bytes(20), key)
    fake = forger.blocks()[0]
    header, certificate = fake.block.header, fake.finality.certificate
    electorate = forger.electorate
    vote = sign_vote(key, member, electorate, VoteKind.NOTARIZE, header.view, header.hash)
    others = [structs.replace(vote, signer=signer) for signer in range(len(electorate.keys))]
    bundle = Bundle(1 - shard, shard, 1_000, (Decision(bytes(32), True),))
    outbox = structs.replace(header, shard=1 - shard, outbox_root=merkle.root([encode(bundle)]))
    carried = CertifiedBundle(bundle, outbox, forger.finality(outbox.hash, outbox.view), merkle.branch([encode(bundle)], 0))
    far = structs.replace(vote, view=2**53)
    return [
        Standing(*[2**53] * len(Standing.__struct_fields__)),
        *map(Ballot, others),
        Ballot(far),
        Certified((certificate, structs.replace(certificate, kind=VoteKind.NULLIFY, block=bytes(32)))),
        Proposal(fake.block, vote, certificate, ()),
        ChainReply((FinalBlock(fake.block, fake.finality),)),
        BodyReply(fake.block),
        BundleDelivery(carried),
        *chain(*([ChainRequest(1), BodyRequest(header.view, header.hash), BundleRequest(1 - shard, 1)] for _ in range(200))),
    ]


async def test_a_stranger_gets_no_connection_and_a_hostile_member_does_no_harm(network: Network, customer: Customer) -> None:
    traitor, *peers = network.nodes(0)
    key, stranger = read_key_file(network.folder.home(traitor) / "key.pem"), generate()
    others = (*peers, network.nodes(1)[0])
    talked: list[str] = []

    def talk_of(kind: str, *chunks: bytes) -> Callable[[bytes, Any], Awaitable[None]]:
        async def talk(peer: bytes, stream: Any) -> None:
            talked.append(kind)
            for chunk in chunks:
                await stream.write(chunk)
            while True:  # until the other side has had enough
                await stream.read(1 << 16)

        return talk

    async def dropped(name: str, key: KeyPair, talk: Callable[[bytes, Any], Awaitable[None]]) -> None:
        with trio.fail_after(10), pytest.raises(ExceptionGroup):
            await call(network, name, key, talk)

    too_large = talk_of("too large", (10 << 20).to_bytes(4, "big"), *[bytes(65_000)] * 160)
    garbage = talk_of("garbage", (1000).to_bytes(4, "big") + os.urandom(1000))
    liar = talk_of("lies", *[frames_of(message) for message in lies(network, 0, key, 0)])

    with unharmed(network, customer, but=traitor):
        network.kill(traitor)
        for name in others:
            await dropped(name, stranger, talk_of("stranger"))
        assert "stranger" not in talked
        async with trio.open_nursery() as nursery:
            for name in others:
                nursery.start_soon(call, network, name, key, liar)
            await trio.to_thread.run_sync(lie_about_a_payment, network, customer, key)
            nursery.cancel_scope.cancel()
        await dropped("coordinator", stranger, too_large)  # which anyone may call, to register
        for talk in (too_large, garbage):
            async with trio.open_nursery() as nursery:
                for name in others:
                    nursery.start_soon(dropped, name, key, talk)
            await trio.sleep(BAN_SECONDS + 0.5)
        assert Counter(talked) == {"lies": len(others), "too large": len(others) + 1, "garbage": len(others)}
        network.start(traitor)
        eventually(lambda: network.caught_up([traitor]), "the member is honest again, and welcome")
    eventually(network.agrees, "all members agree")
    network.audit()


def lie_about_a_payment(network: Network, customer: Customer, key: KeyPair) -> None:
    """Refusals signed by one member, and by strangers in the others' names, do not make the gateway give up a payment."""
    name, payee = network.genesis.network, customer.user.wallet(1)
    with redis.Redis.from_url(network.devnet.broker_url) as client:
        paid = customer.user.pay(customer.payer, payee.id, "0.05", wait=0)
        item = Refusal(bytes.fromhex(paid["id"]), Code.WRONG_SHARD)
        for member in range(4):
            refusals = Refusals(0, 1, member, (item,))
            for signer in (key, generate()):
                client.publish(refusals_topic(name, 0), encode(refusals.signed(signer)))
    final = customer.user.get(f"/v1/transfers/{paid['id']}?wait=20")
    assert (final["status"], customer.user.balance(payee)) == ("committed", ("0.05", "0.00"))


def test_random_bytes_and_half_open_connections_on_every_port(network: Network, customer: Customer) -> None:
    ports = network.devnet.ports
    indexes = range(network.devnet.nodes)
    of_nodes = [port(index) for port in (ports.node, ports.node_metrics) for index in indexes]
    listening = [*of_nodes, ports.coordinator, ports.coordinator_metrics, ports.gateway, ports.dashboard, ports.broker]
    idle: list[socket.socket] = []
    with unharmed(network, customer):
        for port in listening:
            for body in (
                b"\x00",
                os.urandom(100),
                os.urandom(100_000),
                b"\xff" * 70_000,
                b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x0f",
            ):
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
        eventually(lambda: network.caught_up(["node-1"]), "a node connects although strangers hold connections")
    for stream in idle:
        stream.close()
