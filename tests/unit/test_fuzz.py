"""Hostile bytes: whatever arrives is refused with the one error a decoder has, or is harmless to the machine behind it.

Each target is one seeded episode. The tests run a fixed number of each; longer, with new seeds, until something breaks:

    python -m tests.unit.test_fuzz --seconds 600 [--seed 1] [--target replica]
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, TypeVar, cast

import msgpack  # type: ignore[import-untyped]
import pytest
from msgspec import structs

from node.effects import CheckSignatures, Effect, Mine
from node.events import Instant, Recovered, Stored
from node.ledger.execution import InvalidBlock, execute
from node.ledger.state import State
from node.membership import Membership
from node.network.framing import FrameDecoder, FrameTooLarge
from node.protocol import epoch, limits, messages, queries
from node.protocol.block import Balance
from node.protocol.certificate import CertifiedBlock, FinalBlock, VoteKind, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Prepare, PrepareVote, Record
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_BUNDLE_BYTES, MAX_FRAME_BYTES
from node.protocol.messages import Ballot, BundleDelivery, ChainReply, PeerMessage, Proposal, Standing
from node.protocol.puzzle import identity_prefix, search
from node.protocol.reports import Notable, Report
from node.protocol.topics import Refusal, Refusals, TransactionBatch
from node.protocol.transaction import Transaction, decode_transaction
from node.replica.replica import Replica
from signaling.phases import MAX_MESSAGE_BYTES, Coordinator, Saved
from tests import figures
from tests.chains import TIME, Shard, key
from tests.unit.ledger_driver import Ledgers
from tests.unit.replicas import forge_bundle, signed
from tests.vectors.network import DOCUMENT, GENESIS, NETWORK, play

SHARDS = play()
STRANGER = key("stranger")
T = TypeVar("T")


# -- valid samples ---------------------------------------------------------------------------------------------------


def peer_messages(shard: Shard) -> list[PeerMessage]:
    """Messages of every kind as ``shard``'s members would send them at the head of its chain."""
    block = shard.build([NETWORK.pay(NETWORK.person(shard.number), NETWORK.person(1, 2), 5)]).block
    header, last = block.header, shard.chain[-1].finality.certificate
    nullified = shard.certificate(VoteKind.NULLIFY, header.view + 1, ZERO_HASH, (1, 2, 3))
    finals = tuple(FinalBlock(c.block, c.finality) for c in shard.chain)
    proposal = signed(shard, block)
    return [
        proposal,
        structs.replace(proposal, notarization=last, nullifications=(nullified,)),
        Ballot(proposal.vote),
        messages.Certified((last, nullified)),
        Standing(header.height, header.view, header.view - 1),
        messages.ChainRequest(1),
        ChainReply(finals),
        ChainReply(finals[-2:]),
        messages.BodyRequest(header.view, header.hash),
        messages.BodyReply(block),
        messages.BundleRequest(1 - shard.number, 1),
        *(BundleDelivery(bundle) for outbox in shard.outboxes for bundle in outbox),
    ]


@cache
def samples() -> dict[str, tuple[Any, int, list[bytes]]]:
    """Per decoder: the type, its limit, valid encodings."""
    shard = SHARDS[1]
    member = shard.members[2]
    announcements = [NETWORK.announcement(Phase.ASSIGNMENT), NETWORK.announcement(assigned=False)]
    transactions = [data for certified in shard.chain for data in certified.block.transactions]
    refusals = Refusals(1, 1, 2, (Refusal(ZERO_HASH, Code.MALFORMED), Refusal(bytes([7]) * 32, Code.DUPLICATE)))
    answers = (
        queries.NodeStatus("node-1", 8, 9, shard.state.state_root, 1, 2, 3),
        queries.BlockList(tuple(shard.chain[:2])),
        queries.Account(8, (("USD", Balance(5, 1, True)), ("VND", Balance(7)))),
        queries.PendingList(2, ((ZERO_HASH, transactions[0]), (ZERO_HASH, transactions[1]))),
    )
    requests = (queries.GetStatus(), queries.GetBlocks(1, 256), queries.GetAccount(bytes(20)), queries.GetPending(10))
    replies = [queries.sign_reply(bytes(16), 1, 1, 2, answer, member) for answer in answers]
    told: list[Any] = [figures.NODE, figures.changed(figures.NODE, replica=None), figures.COORDINATOR, figures.GATEWAY]
    told += [figures.DASHBOARD, Notable("started")]
    applied = [epoch.Application(NETWORK.registrations[0]), epoch.Acknowledgement(1, DOCUMENT.hash), epoch.Readiness(1, 5)]
    groups: dict[str, tuple[Any, int, list[Any]]] = {
        "PeerMessage": (PeerMessage, MAX_FRAME_BYTES, peer_messages(SHARDS[0]) + peer_messages(SHARDS[1])),
        "ToCoordinator": (epoch.ToCoordinator, MAX_MESSAGE_BYTES, applied),
        "FromCoordinator": (epoch.FromCoordinator, MAX_FRAME_BYTES, [*announcements, epoch.ApplicationRefused("no")]),
        "TransactionBatch": (TransactionBatch, 128 << 10, [TransactionBatch(tuple(transactions))]),
        "CertifiedBlock": (CertifiedBlock, MAX_BROKER_BODY_BYTES, list(shard.chain)),
        "CertifiedBundle": (CertifiedBundle, MAX_BUNDLE_BYTES, [b for outbox in shard.outboxes for b in outbox]),
        "Refusals": (Refusals, MAX_BROKER_BODY_BYTES, [refusals.signed(member)]),
        "Query": (queries.Query, 4096, [queries.Query(bytes(16), "client", -1, request) for request in requests]),
        "Reply": (
            queries.Reply,
            MAX_BROKER_BODY_BYTES,
            [decode(queries.Reply, reply, MAX_BROKER_BODY_BYTES) for reply in replies],
        ),
        "Announcement": (epoch.Announcement, MAX_BROKER_BODY_BYTES, announcements[:1]),
        "Report": (
            Report,
            16 << 10,
            [Report("n" * i, TIME, content) for i, content in enumerate(told, 1)],
        ),
        "Transaction": (Transaction, limits.MAX_TRANSACTION_BYTES, list(map(decode_transaction, transactions))),
    }
    return {name: (kind, limit, [encode(value) for value in values]) for name, (kind, limit, values) in groups.items()}


# -- mutations -------------------------------------------------------------------------------------------------------

_PARTS = ("00", "7f", "80", "90", "a0", "c0", "c1", "c2", "c400", "c700ff", "ca", "cf", "d40500", "d6ff00000000", "ff")
INTERESTING = [bytes.fromhex(part) for part in (*_PARTS, "dcffff", "ddffffffff", "dfffffffff")]
PLAIN: tuple[Any, ...] = (0, 1, -1, 255, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, None, True, 1.5)
PLAIN += ("", "USD\n", "é" * 80, b"", (), {})


def mutated_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    """One to three careless edits of the bytes."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(out) + 1)
        end = min(len(out), at + random.choice((1, 1, 2, 8, 64)))
        match random.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1:
                out[at:at] = random.choice(INTERESTING)
            case 2:
                out[at:end] = random.choice(INTERESTING)
            case 3:
                del out[at:end]
            case 4:
                out[at:at] = out[at:end]
            case 5:
                cut = random.randrange(len(other) + 1)
                out[at:end] = other[cut : cut + end - at]
            case 6:
                del out[at:]
    return bytes(out)


def mutated_structure(random: Random, data: bytes, other: bytes) -> bytes:
    """The same with the values inside, so that what comes out is often still a message: replaced, repeated, dropped, moved."""
    tree = msgpack.unpackb(data, strict_map_key=False)
    lists = [node for node in _lists(tree) if node]
    if random.random() < 0.2:  # what is moved between lists of one parent often stays a message, with the same parts in it
        lists = [node for node in lists if sum(isinstance(child, list) for child in node) >= 2] or lists
    for _ in range(random.choice((1, 1, 2, 3)) if lists else 0):
        into = random.choice(lists)
        at = random.randrange(len(into)) if into else 0
        if not into:
            continue
        old = into[at]
        match random.randrange(9):
            case 0:
                into[at] = random.choice(PLAIN)
            case 1 if isinstance(old, int):
                into[at] = old + random.choice((-2, -1, 1, 2, 256))
            case 2 if isinstance(old, bytes) and old:
                position = random.randrange(len(old))
                into[at] = old[:position] + bytes([old[position] ^ 1 << random.randrange(8)]) + old[position + 1 :]
            case 3:
                into.insert(at, old)
            case 4:
                del into[at]
            case 5 | 8:  # moved into a list beside it: from the bundles to the transactions, say
                beside = [node for node in into if isinstance(node, list)]
                if len(beside) >= 2:
                    giving, taking = random.sample(beside, 2)
                    if giving:
                        taking.insert(0 if giving is beside[0] else len(taking), giving.pop(-1 if giving is beside[0] else 0))
            case 6:
                into[at] = random.choice(_lists(msgpack.unpackb(other, strict_map_key=False)) or [[]])
            case 7:
                random.shuffle(into)
    try:
        return cast(bytes, msgpack.packb(tree))
    except (ValueError, OverflowError, RecursionError):  # a number stepped out of 64 bits, or a list was put into itself
        return data


def _lists(tree: Any) -> list[list[Any]]:
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            found.append(node)
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
    return found


def mutated(random: Random, data: bytes, other: bytes) -> bytes:
    mutate = mutated_structure if random.random() < 0.6 else mutated_bytes
    return mutate(random, data, other)


def mutated_value(random: Random, value: T) -> T:
    """A value of the type that differs, in a few attempts; else the value itself."""
    data = encode(value)
    for _ in range(20):
        try:
            return decode(type(value), mutated_structure(random, data, data), MAX_BROKER_BODY_BYTES)
        except DecodeError:
            continue
    return value


# -- targets: decoders -----------------------------------------------------------------------------------------------

seen: Counter[str] = Counter()
"""What episodes reached, so that a fuzzer that only ever knocks at the door is noticed."""


def decoders(random: Random) -> None:
    """Every decoder of the network's messages: a canonical value or ``DecodeError``."""
    for name, (kind, limit, valid) in samples().items():
        for _ in range(8):
            data = mutated(random, random.choice(valid), random.choice(valid))
            read = decode_transaction if name == "Transaction" and random.random() < 0.5 else None
            try:
                value = read(data) if read else decode(kind, data, limit)
            except DecodeError:
                seen["refused"] += 1
                continue
            seen["decoded"] += data not in valid
            assert encode(value) == data, f"{name}: two encodings of one value"
            _use(value)


def _use(value: Any) -> None:
    """What is asked of a message before it is believed must have an answer, too."""
    electorate = DOCUMENT.electorates[1]
    if isinstance(value, CertifiedBlock | CertifiedBundle | queries.Reply | Refusals):
        value.is_valid(electorate)
    elif isinstance(value, Transaction):
        value.has_valid_signatures()


def framing(random: Random) -> None:
    """Frames of a broken stream are the same however it is cut; a length beyond the cap ends it; nothing piles up."""
    limit = random.choice((16, 300, 5_000))
    stream = b"".join(
        (n := random.choice((0, 1, 15, 200, limit))).to_bytes(4, "big") + random.randbytes(n)
        for _ in range(random.randrange(1, 8))
    )
    stream = mutated_bytes(random, stream, stream)
    whole, whole_error = _frames([stream], limit)
    cuts = sorted(random.randrange(len(stream) + 1) for _ in range(random.randrange(6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    frames, error = _frames(pieces, limit)
    assert error == whole_error
    assert frames == whole or (error and frames[: len(whole)] == whole)  # what came in whole before the bad length was handed out
    assert all(0 < len(frame) <= limit for frame in frames)
    seen["too large" if error else "framed"] += 1


def _frames(pieces: list[bytes], limit: int) -> tuple[list[bytes], bool]:
    decoder, frames = FrameDecoder(limit), []
    for piece in pieces:
        try:
            frames += decoder.feed(piece)
        except FrameTooLarge:
            return frames, True
    return frames, False


# -- targets: the replica --------------------------------------------------------------------------------------------


def state_at(shard: Shard, height: int) -> State:
    """The ledger after the first ``height`` blocks."""
    state = State.genesis(shard.rules)
    for certified in shard.chain[:height]:
        block = certified.block
        bundles = [decode(CertifiedBundle, data, MAX_BUNDLE_BYTES).bundle for data in block.bundles]
        transactions = [(t.id, t) for t in map(decode_transaction, block.transactions)]
        header = block.header
        valid = Transaction.has_valid_signatures
        state.commit(execute(state, shard.rules, header.height, header.time, bundles, transactions, valid).overlay)
    return state


class Target:
    """An honest replica at some height of the true chain, and a world that answers its effects truthfully."""

    def __init__(self, shard: Shard, member: int, height: int) -> None:
        self.shard = shard
        self.now = 1_000
        last = shard.chain[height - 1] if height else None
        state = state_at(shard, height)
        self.replica = Replica(GENESIS, DOCUMENT, shard.members[member], "fuzzed", Recovered(state, last, ()), self.at)
        self.perform(self.replica.start(self.at))

    @property
    def at(self) -> Instant:
        return Instant(self.now, TIME + 10_000 + self.now)

    def hear(self, peer: bytes, message: PeerMessage) -> None:
        self.perform(self.replica.on_message(peer, message, self.at))
        self.check()

    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.perform(self.replica.on_tick(self.at))
        self.check()

    def perform(self, effects: list[Effect]) -> None:
        """Answer what has an answer; whatever would be sent or stored must be encodable, and readable again."""
        for effect in effects:
            if isinstance(effect, CheckSignatures):
                verdicts = [transaction.has_valid_signatures() for transaction in effect.transactions]
                self.perform(self.replica.on_signatures_checked(effect.token, verdicts, self.at))
            elif isinstance(effect, Mine):
                nonce = search(effect.prefix, effect.bits, 0, 1 << 20)
                assert nonce is not None
                self.perform(self.replica.on_mined(effect.token, nonce, self.at))
            elif (message := getattr(effect, "message", None)) is not None:
                decode(cast(Any, PeerMessage), encode(message), MAX_FRAME_BYTES)
            elif (certified := getattr(effect, "block", None)) is not None:
                seen["committed"] += 1
                true = self.shard.chain[certified.block.header.height - 1]
                assert certified.block == true.block, "a block that is not the chain's is stored"
                assert certified.effects == true.effects
                assert certified.is_valid(self.shard.electorate)

    def check(self) -> None:
        """The committed state is always one of the true chain's."""
        state = self.replica.state
        assert state.state_root == self.shard.roots[state.height]


def liar_proposal(random: Random, target: Target, liar: int) -> Proposal:
    """A proposal for a coming view, properly signed and mined by a member that is its leader, with something wrong inside."""
    shard = target.shard
    view = target.replica.consensus.view
    while view % len(shard.members) != liar:
        view += 1
    payer, payee = NETWORK.person(shard.number, random.randrange(2)), NETWORK.person(random.randrange(2), 2)
    payment = NETWORK.pay(payer, payee, random.randrange(1, 500), salt=random.getrandbits(60))
    bundles = [captured_bundle(random, target)] if random.random() < 0.5 else []
    try:
        block = shard.build([payment], bundles, view).block
    except InvalidBlock:
        block = shard.build([payment], [], view).block
    if random.random() < 0.8:
        block = mutated_value(random, block)
    header = block.header
    if random.random() < 0.8:
        header = structs.replace(header, payload_root=block.payload_root(), view=view, proposer=liar)
    proposal = signed(shard, shard.mined(structs.replace(block, header=header)), liar)
    notarization = random.choice((None, shard.chain[-1].finality.certificate))
    first = target.replica.consensus.tree.root.view + 1
    nullifications = tuple(shard.certificate(VoteKind.NULLIFY, v, ZERO_HASH) for v in range(first, min(view, first + 8)))
    some = random.choice((nullifications, nullifications[1:], ()))
    return structs.replace(proposal, notarization=notarization, nullifications=some)


def captured_bundle(random: Random, target: Target) -> CertifiedBundle:
    """The next bundle of the other shard, whose whole committee lies: certified by it, with any records."""
    source = SHARDS[1 - target.shard.number]
    sequence = target.replica.state.cursor(source.number) + random.choice((1, 1, 1, 2))
    known = [bundle.bundle for outbox in source.outboxes for bundle in outbox]
    bundle = Bundle(source.number, target.shard.number, sequence, random.choice(known).records)
    return forge_bundle(source, target.shard.number, sequence, mutated_value(random, bundle).records)


def replica(random: Random) -> None:
    """A member hears mutated messages from one lying member, from nodes of the other shard and from strangers."""
    shard = random.choice(SHARDS)
    liar = random.randrange(4)
    height = random.choice((0, 1, len(shard.chain) - 1, len(shard.chain)))
    target = Target(shard, (liar + random.randrange(1, 4)) % 4, height)
    member, outsider = shard.electorate.keys[liar], SHARDS[1 - shard.number].electorate.keys[0]
    valid = [encode(message) for message in peer_messages(shard)]
    for _ in range(30):
        peer = random.choice((member, member, member, outsider, STRANGER.public))
        kind = random.random()
        if kind < 0.25:
            target.hear(peer, liar_proposal(random, target, liar))
            seen["proposals"] += 1
        elif kind < 0.35:
            target.hear(peer, BundleDelivery(captured_bundle(random, target)))
        elif kind < 0.5:
            target.hear(peer, liar_vote(random, target, liar))
        elif kind < 0.65:
            target.hear(member, Standing(len(shard.chain) + random.choice((0, 5)), *random.sample(range(30), 2)))
            target.wait(random.choice((0, 350, 3_100)))  # it asks for blocks after some patience
            blocks = encode(
                ChainReply(tuple(FinalBlock(c.block, c.finality) for c in shard.chain[target.replica.state.height :]))
            )
            _hear_mutated(random, target, peer, blocks, random.choice(valid))
        else:
            _hear_mutated(random, target, peer, random.choice(valid), random.choice(valid))
        if random.random() < 0.2:
            target.wait(random.choice((1, 60, 1_000, 4_000)))


def liar_vote(random: Random, target: Target, liar: int) -> PeerMessage:
    shard, consensus = target.shard, target.replica.consensus
    view = max(0, consensus.view + random.choice((-2, -1, 0, 0, 0, 1, 2, 49, 51, 2**50)))
    block = random.choice((ZERO_HASH, consensus.tree.root_hash, random.randbytes(32), shard.head.hash))
    signer = random.choice((liar, liar, 255))
    return Ballot(sign_vote(shard.members[liar], signer, shard.electorate, random.choice(list(VoteKind)), view, block))


def _hear_mutated(random: Random, target: Target, peer: bytes, data: bytes, other: bytes) -> None:
    """One of a few mutations that still decodes, if there is one."""
    for _ in range(8):
        try:
            message = decode(cast(Any, PeerMessage), mutated(random, data, other), MAX_FRAME_BYTES)
        except DecodeError:
            continue
        seen["heard"] += 1
        target.hear(peer, message)
        return


# -- targets: execution ----------------------------------------------------------------------------------------------


def execution(random: Random) -> None:
    """A shard takes what a captured committee may send: ``InvalidBlock`` or a state whose sums are right."""
    ledgers = Ledgers(3, checkpoint_interval=2)
    rich, poor = ([ledgers.account(shard, number) for shard in ledgers.shards] for number in range(2))
    for account in rich:
        ledgers.fund(account, 1_000)
    ids: list[bytes] = [ZERO_HASH]
    captured: set[tuple[int, int]] = set()
    for _ in range(12):
        for channel in captured:
            ledgers.channels[channel].clear()  # what an honest committee would send never leaves
        here = random.randrange(3)
        payer, payee = random.sample(rich, 2)
        payment = ledgers.pay(payer, payee, random.randrange(1, 1_200))
        ids.append(payment.id)
        home = ledgers.rules[0].shards.shard_of(payer)
        ledgers.block(home, payment, take=random.choice((0, 1, 100)))
        source = random.choice([shard for shard in ledgers.shards if shard != here])
        records = tuple(_record(random, ledgers, rich + poor, ids) for _ in range(random.randrange(1, 4)))
        sequence = ledgers.states[here].cursor(source) + 1
        bundle = mutated_value(random, Bundle(source, here, sequence, records))
        before = ledgers.states[here].state_root, ledgers.states[here].height
        try:
            ledgers.execute(here, bundles=[bundle])
        except InvalidBlock:
            seen["block refused"] += 1
            continue
        finally:
            assert (ledgers.states[here].state_root, ledgers.states[here].height) == before
        seen["block executed"] += 1
        if random.random() < 0.5:
            captured.add((bundle.source, here))
            ledgers.block(here, take=0, bundles=[bundle])  # the driver checks the sums from the rows
        ledgers.now += random.choice((0, 10, 600))


def _record(random: Random, ledgers: Ledgers, accounts: list[bytes], ids: list[bytes]) -> Record:
    match random.randrange(3):
        case 0:
            payer, payee = random.sample(accounts, 2)
            payment = ledgers.pay(payer, payee, random.choice((1, 50, 10**6, 2**63 - 1)))
            ids.append(payment.id)
            return Prepare(encode(mutated_value(random, payment)), ledgers.now + random.choice((0, 500, 1_000, 10**6)))
        case 1:
            return PrepareVote(random.choice(ids), random.choice(list(Code)))
        case _:
            return Decision(random.choice(ids), random.random() < 0.5)


# -- targets: signaling ----------------------------------------------------------------------------------------------


def coordinator(random: Random) -> None:
    """The coordinator hears mutated applications, also properly signed and mined ones: what it publishes stays valid."""
    machine = Coordinator(GENESIS, NETWORK.coordinator, 1_000, Saved(Phase.REGISTRATION, 0))
    peers = [*NETWORK.nodes.values(), STRANGER]
    valid = samples()["ToCoordinator"][2]
    for now in range(60):
        peer = random.choice(peers)
        machine.connect(peer.public, now)
        kind = random.random()
        if kind < 0.4:
            data = encode(epoch.Application(_application(random, peer)))
        elif kind < 0.6:
            data = encode(
                epoch.Application(
                    next((r for r in NETWORK.registrations if r.public_key == peer.public), NETWORK.registrations[0])
                )
            )
        else:
            data = mutated(random, random.choice(valid), random.choice(valid))
        effects = machine.receive(peer.public, data, now)
        for effect in [*effects, *(machine.tick(now * 30) if random.random() < 0.2 else [])]:
            message = getattr(effect, "message", None) or getattr(effect, "announcement", None)
            if message is not None:
                decode(cast(Any, epoch.FromCoordinator), encode(message), MAX_FRAME_BYTES)
        if random.random() < 0.1:
            machine.disconnect(peer.public, now)
    seen["registered"] += len(machine.registrations)
    for registration in machine.registrations.values():
        registration.check(GENESIS, 1, GENESIS.hash)
    if machine.document is not None:
        seen["documents"] += 1
        machine.document.check(GENESIS)


def _application(random: Random, peer: KeyPair) -> epoch.Registration:
    changed = mutated_value(random, random.choice(NETWORK.registrations))
    nonce = search(identity_prefix(GENESIS.network, 1, GENESIS.hash, peer.public), 8, 0, 1 << 16)
    assert nonce is not None
    changed = structs.replace(changed, public_key=peer.public, nonce=nonce)
    if random.random() < 0.7:
        changed = structs.replace(changed, network=GENESIS.network, epoch=1)
    return changed.signed(peer)


def membership(random: Random) -> None:
    """A node hears mutated announcements, also such as the coordinator itself signed: it keeps one valid document, or none."""
    node = random.choice(list(NETWORK.nodes.values()))
    machine = Membership(GENESIS, node, "node", ("/ip4/192.0.2.1/tcp/1",), Stored())
    valid = samples()["FromCoordinator"][2]
    accepted, begun = None, False
    for _ in range(40):
        machine.connected()
        is_signed = random.random() < 0.5
        data = encode(_announcement(random)) if is_signed else mutated(random, random.choice(valid), random.choice(valid))
        for effect in machine.received(data) + (machine.ready(5) if random.random() < 0.1 else []):
            if (message := getattr(effect, "message", None)) is not None:
                decode(cast(Any, epoch.ToCoordinator), encode(message), MAX_MESSAGE_BYTES)
        assert accepted in (None, machine.document)
        assert machine.begun or not begun
        accepted, begun = machine.document, machine.begun
        if accepted is not None:
            accepted.check_first(GENESIS)
    seen["accepted"] += accepted is not None
    seen["begun"] += begun


def _announcement(random: Random) -> epoch.Announcement:
    """Signed by the coordinator, whatever it says."""
    document = mutated_value(random, DOCUMENT) if random.random() < 0.5 else DOCUMENT
    phase = random.choice(list(Phase))
    is_assigned = phase is not Phase.REGISTRATION or random.random() < 0.1
    signed = NETWORK.sign_document(document) if is_assigned else None
    notice = epoch.PhaseNotice(GENESIS.network, 1, phase, TIME, 9)
    if random.random() < 0.2:
        notice = mutated_value(random, notice)
    return epoch.Announcement(notice.signed(NETWORK.coordinator), signed)


# -- running ---------------------------------------------------------------------------------------------------------

Episode = Callable[[Random], None]
TARGETS: dict[str, tuple[Episode, int, tuple[str, ...]]] = {
    "decoders": (decoders, 120, ("refused", "decoded")),
    "framing": (framing, 400, ("too large", "framed")),
    "replica": (replica, 40, ("heard", "proposals", "committed")),
    "execution": (execution, 40, ("block refused", "block executed")),
    "coordinator": (coordinator, 40, ("registered", "documents")),
    "membership": (membership, 40, ("accepted", "begun")),
}
"""By name: the episode, how many the tests run, and what they must have reached in sum."""


def run(target: str, seed: int) -> None:
    try:
        TARGETS[target][0](Random(f"{target}-{seed}"))
    except BaseException as error:
        error.add_note(f"run it again with --target {target} --seed {seed}")
        raise


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_input_is_refused_or_harmless(target: str) -> None:
    _, count, reached = TARGETS[target]
    seen.clear()
    for seed in range(count):
        run(target, seed)
    assert all(seen[what] for what in reached), seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1_000_000, help="the first seed")
    parser.add_argument("--target", choices=TARGETS, action="append")
    options = parser.parse_args()
    end, first = time.monotonic() + options.seconds, options.seed
    seed = first
    while time.monotonic() < end:
        for target in options.target or TARGETS:
            run(target, seed)
        seed += 1
    print(f"seeds {first} to {seed - 1}; reached:", dict(seen))


if __name__ == "__main__":
    main()
