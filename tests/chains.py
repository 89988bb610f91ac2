"""THE maker of networks for tests: genesis, keys, epoch document, and chains of really executed, mined and certified blocks.

Nothing here draws a random number or reads a clock: the bytes are the same on every machine. Blocks are executed and
certified by the functions that nodes use; only the messages between the members are left out. ``Shard.forge`` certifies what
no honest committee would: a captured one can.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from msgspec import structs

from node.ledger.checkpoint import Slice
from node.ledger.execution import Execution, execute, genesis_header
from node.ledger.opening import Origin, open_state, opening_header
from node.ledger.register import register_of
from node.ledger.replay import Piece
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.address import address_of
from node.protocol.assignment import next_document
from node.protocol.block import Block, Effects, Header, skip_height
from node.protocol.certificate import (
    Certificate,
    CertifiedBlock,
    CertifiedHeader,
    Finality,
    VoteKind,
    make_certificate,
    sign_vote,
)
from node.protocol.change import Bulletin, Register, RegisterPhase, Stage
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import encode
from node.protocol.credits import Credits, next_credits
from node.protocol.crypto import KeyPair, digest
from node.protocol.entries import Call, Disclosure, Enrolment, Entry, Farewell, Ready
from node.protocol.epoch import (
    Announcement,
    Content,
    EpochDocument,
    Opening,
    PhaseNotice,
    ReadyQuorum,
    Registration,
    Roll,
    SignedDocument,
    SignedRoll,
    commitment_to,
    first_document,
    readiness_statement,
)
from node.protocol.genesis import Asset, Genesis, Parameters, Phase
from node.protocol.puzzle import identity_prefix, search
from node.protocol.queries import Answer, Query, sign_reply
from node.protocol.succession import Succession
from node.protocol.transaction import Action, Leg, Order, Transaction

TIME = 1_700_000_000_000


@cache
def key(label: str) -> KeyPair:
    """The key pair whose secret is the digest of the label under the domain "test vector"."""
    return KeyPair(digest("test vector", label.encode()))


def leg(payer: KeyPair, payee: KeyPair, asset: str, amount: int, action: Action = Action.PAY) -> Leg:
    return Leg(address_of(payer.public), address_of(payee.public), asset, amount, action)


class Built(NamedTuple):
    """A block nobody has signed, and what executing it gave."""

    block: Block
    execution: Execution


class Network:
    """``committees`` of ``size``, and ``standby`` nodes more. USD (2 decimals) and VND (none) exist, but nobody has any.

    ``terms``: (fee, smallest balance) of an asset that has them.

    Attributes:
        genesis, coordinator, issuers (by asset), nodes (by public key): who there is.
        documents, successions: of all epochs. document: of this one. credits: with which it began.
        roll, secrets (by public key): what epoch 1 comes from. opening: its document, in force.
        shards: one chain each, of this epoch, at height 0 when it begins. chains: of all epochs.
    """

    def __init__(
        self,
        name: str = "test",
        committees: int = 2,
        size: int = 4,
        standby: int = 0,
        time: int = TIME,
        terms: Mapping[str, tuple[int, int]] = {},
        **parameters: int,
    ) -> None:
        """``parameters``: of the genesis, where they shall not be the cheapest to compute."""
        cheap = {"block_difficulty_bits": 0, "puzzle_difficulty_bits": 2, "checkpoint_interval": 600}
        self.coordinator = key("coordinator")
        self.issuers = {"USD": key("issuer USD"), "VND": key("issuer VND")}
        decimals = {"USD": 2, "VND": 0}
        assets = tuple(Asset(c, decimals[c], pair.public.hex(), *terms.get(c, ())) for c, pair in self.issuers.items())
        rules = Parameters(committees=committees, committee_size=size, **{**cheap, **parameters})
        self.genesis = Genesis(name=name, time=time, coordinator=self.coordinator.public.hex(), assets=assets, parameters=rules)
        pairs = [key(f"node {i}") for i in range(committees * size + standby)]
        self.nodes = {pair.public: pair for pair in pairs}
        self.secrets = {pair.public: digest("test vector", b"secret", pair.public) for pair in pairs}
        self.registrations = tuple(self.register(number, pair) for number, pair in enumerate(pairs))
        self.roll = self.roll_of(self.registrations)
        self.document = first_document(self.genesis, self.roll, self.secrets)
        self.signed = self.sign_document(self.document)
        self.opening = self.open_document(self.document)
        self.documents, self.successions = [self.document], list[Succession]()
        self.credits: Credits = {}
        self.shards = [Shard(self, number) for number in range(committees)]
        self.chains = {shard.electorate.chain: shard for shard in self.shards}
        self._salts = count(1)

    def change(self, nodes: Iterable[KeyPair] = ()) -> Succession:
        """Form the next epoch of ``nodes``, or all: they do what nodes do until all shards have closed. Then its chains begin.
        Committees are numbered from 0 on."""
        there, epoch = list(nodes) or list(self.nodes.values()), self.document.number
        register, challenge = self.shards[0], self.document.hash
        absent = [pair for public, pair in self.nodes.items() if public not in {one.public for one in there}]
        leaving = [pair for pair in absent if self.document.seat_of(pair.public)]
        numbers = {public: number for number, public in enumerate(self.nodes)}
        made = [self.register(numbers[one.public], one, 1, epoch + 1, challenge) for one in there]
        entries: list[Entry] = [Farewell(self.genesis.network, epoch, pair.public).signed(pair) for pair in leaving]
        register.add(entries=[*map(Enrolment, made), *entries, Call(self.genesis.network, epoch, 1).signed(self.coordinator)])
        register.add(after=max(100, register.register.not_before - register.head.time))
        register.add(entries=[Disclosure(1, one.public, self.secrets[one.public]) for one in there])
        while register.register.phase is RegisterPhase.REVEAL:
            self.round()
        following = next_document(self.document, register.register, 1, self.genesis.parameters)
        members = [key for electorate in following.electorates.values() for key in electorate.keys]
        register.add(entries=[Ready(following.hash, key).signed(self.nodes[key]) for key in members])
        while not all(shard.is_closed for shard in self.shards):
            self.round()
        self.begin(Succession(tuple(shard.bulletin() for shard in self.shards)))
        return self.successions[-1]

    def begin(self, succession: Succession) -> None:
        """Open the chains of the next epoch."""
        before, origins = self.document, {shard.number: Origin(shard.state, shard.head) for shard in self.shards}
        issuers = {asset.code: asset.issuer_address for asset in self.genesis.assets}
        self.document = succession.next_document(before, self.genesis.parameters)
        self.credits = next_credits(self.credits, before, self.document, succession.closings, issuers)
        self.documents.append(self.document)
        self.successions.append(succession)
        self.shards = [self._opened(number, origins) for number in sorted(self.document.electorates)]
        self.chains |= {shard.electorate.chain: shard for shard in self.shards}

    def _opened(self, number: int, before: Mapping[int, Origin]) -> "Shard":
        """A chain of this epoch, at height 0."""
        document, origins = self.document, [before[origin] for origin in self.document.origins_of(number)]
        closings = [origin.closing for origin in origins]
        opened = max(closing.time for closing in closings)
        rules = Rules(self.genesis, document.network_id, number, document.shards, document, opened)
        state = open_state(rules, document, origins, self.credits)
        return Shard(self, number, document, (state, opening_header(document, number, state, closings)))

    def round(self) -> None:
        """A block in each shard that has not closed, with all that waits for it."""
        for shard, bundles in zip(self.shards, [self.waiting(shard.number) for shard in self.shards], strict=True):
            if not shard.is_closed:
                shard.add(bundles=bundles)

    def register(
        self, number: int, node: KeyPair, attempt: int = 1, epoch: int = 1, challenge: bytes | None = None
    ) -> Registration:
        """A valid registration of ``node`` as ``node-{number}``, with the same secret in each attempt of all epochs."""
        prefix = identity_prefix(self.genesis.network, epoch, challenge or self.genesis.hash, node.public)
        nonce = search(prefix, self.genesis.parameters.puzzle_difficulty_bits, 0, 1 << 20)
        assert nonce is not None
        return Registration(
            network=self.genesis.network,
            epoch=epoch,
            attempt=attempt,
            public_key=node.public,
            name=f"node-{number}",
            addresses=(f"/ip4/192.0.2.{number + 1}/tcp/8100",),
            nonce=nonce,
            commitment=commitment_to(self.secrets[node.public]),
        ).signed(node)

    def roll_of(self, registrations: Iterable[Registration], attempt: int = 1) -> Roll:
        by_key = sorted(registrations, key=lambda registration: registration.public_key)
        return Roll(self.genesis.network, 1, attempt, tuple(by_key))

    def sign_roll(self, roll: Roll) -> SignedRoll:
        return SignedRoll(roll, self.coordinator.sign(roll.hash))

    def sign_document(self, document: EpochDocument) -> SignedDocument:
        return SignedDocument(document, self.coordinator.sign(document.hash))

    def open_document(self, document: EpochDocument) -> Opening:
        """In force: the first quorum of each committee is ready."""
        statement, quorums = readiness_statement(document.hash), []
        for electorate in document.electorates.values():
            signers = tuple(range(electorate.quorum))
            quorums.append(ReadyQuorum(signers, tuple(self.nodes[electorate.keys[i]].sign(statement) for i in signers)))
        return Opening(self.sign_document(document), tuple(quorums))

    def announcement(self, phase: Phase = Phase.MINING, since: int = TIME) -> Announcement:
        """What the coordinator says in a phase of the first attempt."""
        contents: dict[Phase, Content] = {Phase.REVEAL: self.sign_roll(self.roll), Phase.MINING: self.opening}
        contents |= {Phase.ASSIGNMENT: self.signed, Phase.HANDOFF: self.signed}
        notice = PhaseNotice(self.genesis.network, 1, 1, phase, since, len(self.nodes)).signed(self.coordinator)
        return Announcement(notice, contents.get(phase))

    def shard_of(self, owner: KeyPair) -> "Shard":
        return self.shards[self.document.shards.shard_of(address_of(owner.public))]

    def person(self, shard: int, number: int = 0) -> KeyPair:
        """The ``number``-th of the keys "person 0", "person 1", ... whose address the shard keeps."""
        found = (pair for i in count() if self.shard_of(pair := key(f"person {i}")).number == shard)
        for _ in range(number):
            next(found)
        return next(found)

    def sign(
        self, keys: Sequence[KeyPair], *legs: Leg, memo: str = "", valid_until: int | None = None, salt: int | None = None
    ) -> Transaction:
        """``valid_until``: by default a minute after the genesis. ``salt``: by default one more with every call."""
        until = self.genesis.time + 60_000 if valid_until is None else valid_until
        salted = (next(self._salts) if salt is None else salt).to_bytes(8, "big")
        return Order(self.document.network_id, legs, memo, until, salted).sign(keys)

    def pay(self, payer: KeyPair, payee: KeyPair, amount: int, asset: str = "USD", **order: Any) -> Transaction:
        return self.sign([payer], leg(payer, payee, asset, amount), **order)

    def fund(self, payee: KeyPair, amount: int, asset: str = "USD") -> None:
        """Mint, and make blocks until it has arrived."""
        issuer = self.issuers[asset]
        self.shard_of(issuer).add(self.pay(issuer, payee, amount, asset))
        self.exchange()

    def exchange(self) -> None:
        """Blocks in all shards until every bundle has been taken."""
        while any(waiting := [self.waiting(shard.number) for shard in self.shards]):
            for shard, bundles in zip(self.shards, waiting, strict=True):
                if bundles:
                    shard.add(bundles=bundles)

    def waiting(self, destination: int) -> list[CertifiedBundle]:
        """Bundles on their way to a shard, proven, in order."""
        state = self.shards[destination].state
        return [bundle for source in self.shards for bundle in source.sent[destination][state.cursor(source.number) :]]


class Shard:
    """One shard's chain.

    Attributes:
        members: the keys of its committee, in member order.
        state: after the last block; ``genesis``: the header at height 0; ``roots``: state roots by height.
        slices: the rows each block has for the disk; included: what it adds to the replay set, by height.
        chain: the certified blocks; ``outboxes``: the bundles each of them sends, proven; ``sent``: the same by destination.
    """

    def __init__(
        self, network: Network, number: int, document: EpochDocument | None = None, opened: tuple[State, Header] | None = None
    ) -> None:
        """``document``, ``opened``: of a later epoch, and the state and header at height 0."""
        document = document or network.document
        self.number = number
        self.electorate = document.electorates[number]
        self.members = [network.nodes[public] for public in self.electorate.keys]
        if opened is None:
            state = State.genesis(Rules(network.genesis, document.network_id, number, document.shards, document))
            opened = state, genesis_header(network.genesis, number, state)
        self.state, self.genesis = opened
        self.rules = self.state.rules
        self.roots = [self.state.state_root]
        self.slices: list[Slice] = []
        self.included: dict[int, tuple[Piece, ...]] = {}
        self.chain: list[CertifiedBlock] = []
        self.outboxes: list[tuple[CertifiedBundle, ...]] = []
        self.sent: defaultdict[int, list[CertifiedBundle]] = defaultdict(list)

    @property
    def head(self) -> Header:
        return self.header(len(self.chain))

    @property
    def register(self) -> Register:
        """What this shard has written down, as the network's register."""
        return register_of(self.state.change, self.rules)

    @property
    def is_closed(self) -> bool:
        return self.state.change.stage is Stage.CLOSED

    def bulletin(self) -> Bulletin:
        """How far the change is after the last block."""
        return Bulletin(self.electorate.epoch, self.head, self.chain[-1].finality, self.state.change)

    def header(self, height: int) -> Header:
        return self.chain[height - 1].block.header if height else self.genesis

    def last(self, height: int) -> CertifiedHeader | None:
        """As ``Recovered`` has it, if this block is the last one."""
        return CertifiedHeader(self.header(height), self.chain[height - 1].finality) if height else None

    def peaks(self, height: int) -> dict[int, bytes]:
        """Hashes by height: of the block there, and of those that skips lead to."""
        found = {height: self.header(height).hash}
        while height:
            height = skip_height(height)
            found[height] = self.header(height).hash
        return found

    def certificate(
        self, kind: VoteKind, view: int, block_hash: bytes, signers: Iterable[int] = (), keys: Sequence[KeyPair] = ()
    ) -> Certificate:
        """By ``signers``, or the first quorum of the members. ``keys``: who signs in the members' place."""
        chosen = signers or range(self.electorate.quorum)
        votes = [sign_vote((keys or self.members)[i], i, self.electorate, kind, view, block_hash) for i in chosen]
        return make_certificate(votes, self.electorate)

    def certify(self, block: Block, effects: Effects, keys: Sequence[KeyPair] = ()) -> CertifiedBlock:
        """The block, made final by a quorum (or by ``keys``); whether it makes sense is not asked."""
        header = block.header
        certificate = self.certificate(VoteKind.FINALIZE, header.view, header.hash, keys=keys)
        return CertifiedBlock(block, Finality((), certificate), effects)

    def build(
        self,
        transactions: Sequence[Transaction] = (),
        bundles: Sequence[CertifiedBundle] = (),
        view: int = 0,
        after: int = 100,
        entries: Sequence[Entry] = (),
    ) -> Built:
        """A block on the head, in ``view`` (0: the next) by that view's leader, ``after`` ms later; mined, but not certified."""
        head, view = self.head, view or self.head.view + 1
        pairs = [(transaction.id, transaction) for transaction in transactions]
        sent = [bundle.bundle for bundle in bundles]
        verify, time = Transaction.has_valid_signatures, head.time + after
        execution = execute(self.state, self.rules, head.height + 1, time, sent, pairs, verify, entries)
        payload = tuple(map(encode, bundles)), tuple(map(encode, transactions)), tuple(map(encode, entries))
        header = Header(
            document=self.electorate.document,
            shard=self.number,
            view=view,
            height=head.height + 1,
            parent=head.hash,
            skip=self.header(skip_height(head.height + 1)).hash,
            time=time,
            proposer=view % len(self.members),
            payload_root=Block(head, *payload).payload_root(),
            receipts_root=execution.receipts_root,
            outbox_root=execution.outbox_root,
            changes_hash=execution.changes_hash,
            totals_hash=execution.totals_hash,
            change_hash=execution.change_hash,
            state_root=execution.state_root,
            nonce=bytes(8),
        )
        return Built(self.mined(Block(header, *payload)), execution)

    def mined(self, block: Block) -> Block:
        """The block with the first nonce that satisfies the difficulty."""
        nonce = search(block.header.mining_prefix, self.rules.parameters.block_difficulty_bits, 0, 1 << 20)
        assert nonce is not None
        return structs.replace(block, header=structs.replace(block.header, nonce=nonce))

    def add(
        self,
        *transactions: Transaction,
        bundles: Sequence[CertifiedBundle] = (),
        after: int = 100,
        entries: Sequence[Entry] = (),
    ) -> CertifiedBlock:
        """Make the next block final."""
        block, execution = self.build(transactions, bundles, after=after, entries=entries)
        certified = self.certify(block, execution.effects)
        self.included[block.header.height] = execution.overlay.included
        self.slices.append(self.state.commit(execution.overlay))
        self.roots.append(self.state.state_root)
        leaves = [encode(bundle) for bundle in execution.outbox]
        header, finality = certified.block.header, certified.finality
        self.outboxes.append(
            tuple(
                CertifiedBundle(bundle, header, finality, merkle.branch(leaves, i)) for i, bundle in enumerate(execution.outbox)
            )
        )
        for bundle in self.outboxes[-1]:
            self.sent[bundle.bundle.destination].append(bundle)
        self.chain.append(certified)
        return certified

    def forge(
        self,
        base: CertifiedBlock | None = None,
        *,
        effects: Effects | None = None,
        transactions: Sequence[bytes] | None = None,
        bundles: Sequence[bytes] | None = None,
        keys: Sequence[KeyPair] = (),
        **header: Any,
    ) -> CertifiedBlock:
        """A certified block that nobody executed: ``base`` (an empty next block) with other content or header fields.

        The roots follow the content. It is not added to the chain. ``keys``: who signs it in the members' place.
        """
        if base is None:
            block, execution = self.build()
            found = effects or execution.effects
        else:
            block, found = base.block, effects or base.effects
        payload = (
            block.bundles if bundles is None else tuple(bundles),
            block.transactions if transactions is None else tuple(transactions),
        )
        roots = {
            "payload_root": Block(block.header, *payload).payload_root(),
            "receipts_root": merkle.root([encode(receipt) for receipt in found.receipts]),
            "changes_hash": found.changes.hash(),
            "totals_hash": found.totals.hash(),
        }
        return self.certify(Block(structs.replace(block.header, **{**roots, **header}), *payload), found, keys)

    def reply(self, query: Query, member: int, answer: Answer) -> bytes:
        """A member's encoded, signed reply."""
        return sign_reply(query.id, self.electorate, member, answer, self.members[member])
