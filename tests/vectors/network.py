"""A small network with fixed keys and a chain of real blocks in each of its shards: what vectors and fuzzers start from.

Nothing here draws a random number or reads a clock: the bytes are the same on every machine. The blocks are built, executed
and certified by the functions that nodes use; only the messages between the members are left out.
"""

from collections.abc import Sequence
from functools import cache
from itertools import count

from msgspec import structs

from node.consensus.round import Seat
from node.consensus.simplex import Turn
from node.ledger.execution import genesis_header
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.address import address_of
from node.protocol.block import Block, Header
from node.protocol.certificate import Certificate, CertifiedBlock, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair, digest
from node.protocol.epoch import EpochDocument, Registration, SignedDocument, first_document
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.puzzle import identity_prefix, search
from node.protocol.transaction import Action, Leg, Order, Transaction
from node.replica.mempool import Entry
from node.replica.proposing import Candidate, build_block

TIME = 1_700_000_000_000


def key(label: str) -> KeyPair:
    """The key pair whose secret is the digest of the label under the domain "test vector"."""
    return KeyPair(digest("test vector", label.encode()))


COORDINATOR, DOLLAR, DONG = key("coordinator"), key("issuer USD"), key("issuer VND")
GENESIS = Genesis(
    name="vectors",
    time=TIME,
    coordinator=COORDINATOR.public.hex(),
    assets=(Asset("USD", 2, DOLLAR.public.hex()), Asset("VND", 0, DONG.public.hex())),
    parameters=Parameters(
        committees=2, committee_size=4, block_difficulty_bits=4, puzzle_difficulty_bits=8, checkpoint_interval=4
    ),
)
NODES = {node.public: node for node in (key(f"node {i}") for i in range(9))}


def _registration(number: int, node: KeyPair) -> Registration:
    prefix = identity_prefix(GENESIS.network, 1, GENESIS.hash, node.public)
    nonce = search(prefix, GENESIS.parameters.puzzle_difficulty_bits, 0, 1 << 20)
    assert nonce is not None
    address = f"/ip4/192.0.2.{number + 1}/tcp/8100"
    return Registration(GENESIS.network, 1, node.public, f"node-{number}", (address,), nonce).signed(node)


REGISTRATIONS = tuple(_registration(number, node) for number, node in enumerate(NODES.values()))
DOCUMENT: EpochDocument = first_document(GENESIS, REGISTRATIONS)
SIGNED = SignedDocument(DOCUMENT, COORDINATOR.sign(DOCUMENT.hash))


@cache
def person(shard: int, number: int) -> KeyPair:
    """The ``number``-th of the keys "person 0", "person 1", ... whose address the shard keeps."""
    found = (p for i in count() if DOCUMENT.shards.shard_of(address_of((p := key(f"person {i}")).public)) == shard)
    for _ in range(number):
        next(found)
    return next(found)


def leg(payer: KeyPair, payee: KeyPair, asset: str, amount: int, action: Action = Action.PAY) -> Leg:
    return Leg(address_of(payer.public), address_of(payee.public), asset, amount, action)


def sign(keys: Sequence[KeyPair], *legs: Leg, memo: str = "", valid_until: int = TIME + 60_000, salt: int = 0) -> Transaction:
    return Order(GENESIS.network, legs, memo, valid_until, salt.to_bytes(8, "big")).sign(keys)


def mined(block: Block) -> Block:
    """The block with the first nonce that satisfies the difficulty."""
    header = block.header
    nonce = search(header.mining_prefix, GENESIS.parameters.block_difficulty_bits, 0, 1 << 20)
    assert nonce is not None
    return structs.replace(block, header=structs.replace(header, nonce=nonce))


class Shard:
    """One shard's chain. ``chain``: the certified blocks; ``outboxes``: the bundles each block sends, proven."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.electorate = DOCUMENT.electorates[number]
        self.members = [NODES[public] for public in self.electorate.keys]
        self.rules = Rules(GENESIS, number, DOCUMENT.shards)
        self.state = State.genesis(self.rules)
        self.genesis = genesis_header(GENESIS, number, self.state)
        self.roots = [self.state.state_root]
        self.chain: list[CertifiedBlock] = []
        self.outboxes: list[tuple[CertifiedBundle, ...]] = []

    @property
    def head(self) -> Header:
        return self.chain[-1].block.header if self.chain else self.genesis

    def certificate(self, kind: VoteKind, view: int, block: bytes, signers: Sequence[int] = (0, 1, 2)) -> Certificate:
        votes = [sign_vote(self.members[i], i, self.electorate, kind, view, block) for i in signers]
        return make_certificate(votes, self.electorate)

    def build(
        self, transactions: Sequence[Transaction] = (), bundles: Sequence[CertifiedBundle] = (), view: int = 0
    ) -> Candidate:
        """A mined block on the head, in ``view`` (0: the next), by that view's leader; not certified."""
        turn = Turn(view or self.head.view + 1, self.head.hash, None, ())
        member = turn.view % len(self.members)
        seat = Seat(self.members[member], member, self.electorate)
        entries = [Entry(t.id, t, encode(t)) for t in transactions]
        payload = bundles, [encode(bundle) for bundle in bundles]
        candidate = build_block(self.state, turn, seat, self.rules, self.head.time + 100, payload, entries)
        return Candidate(turn, mined(candidate.block), candidate.draft)

    def add(self, *transactions: Transaction, bundles: Sequence[CertifiedBundle] = ()) -> CertifiedBlock:
        """Make the next block final."""
        candidate = self.build(transactions, bundles)
        header, execution = candidate.block.header, candidate.draft.execution
        assert execution is not None
        finality = Finality((), self.certificate(VoteKind.FINALIZE, header.view, header.hash))
        self.state.commit(execution.overlay)
        self.roots.append(self.state.state_root)
        certified = CertifiedBlock(candidate.block, finality, execution.effects)
        leaves = [encode(bundle) for bundle in execution.outbox]
        self.outboxes.append(
            tuple(
                CertifiedBundle(bundle, header, finality, merkle.branch(leaves, i)) for i, bundle in enumerate(execution.outbox)
            )
        )
        self.chain.append(certified)
        return certified


def play() -> list[Shard]:
    """A history with everything in it: mints, payments inside and across shards, an exchange, a freeze, a rejection."""
    shards = [Shard(0), Shard(1)]
    by_address = DOCUMENT.shards.shard_of
    alice, bob, carol, dave = person(0, 0), person(0, 1), person(1, 0), person(1, 1)
    issuers = {"USD": DOLLAR, "VND": DONG}
    salt = count(1)
    for asset, payee in (("USD", alice), ("VND", carol), ("USD", carol)):
        home = by_address(address_of(issuers[asset].public))
        shards[home].add(sign([issuers[asset]], leg(issuers[asset], payee, asset, 100_000), salt=next(salt)))
    _exchange(shards)
    shards[0].add(
        sign([alice], leg(alice, bob, "USD", 2_500), memo="Lunch, café", salt=next(salt)),
        sign([alice, carol], leg(alice, carol, "USD", 1_000), leg(carol, alice, "VND", 25_000), salt=next(salt)),
        sign([bob], leg(bob, alice, "USD", 9_999_999), salt=next(salt)),
    )
    shards[1].add(sign([carol], leg(carol, dave, "VND", 7), salt=next(salt)))
    _exchange(shards)
    home = by_address(address_of(DONG.public))
    shards[home].add(sign([DONG], leg(DONG, dave, "VND", 0, Action.FREEZE), salt=next(salt)))
    _exchange(shards)
    return shards


def _exchange(shards: list[Shard]) -> None:
    """ChainReply until every bundle has been taken."""
    while True:
        waiting = [_untaken(shards, shard) for shard in shards]
        if not any(waiting):
            return
        for shard, bundles in zip(shards, waiting, strict=True):
            if bundles:
                shard.add(bundles=bundles)


def _untaken(shards: list[Shard], destination: Shard) -> list[CertifiedBundle]:
    return [
        bundle
        for source in shards
        for outbox in source.outboxes
        for bundle in outbox
        if bundle.bundle.destination == destination.number and bundle.bundle.sequence > destination.state.cursor(source.number)
    ]
