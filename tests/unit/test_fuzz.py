"""Hostile bytes and hostile members: whatever arrives is refused, or is harmless to the machine that hears it.

Each target is one seeded episode. The tests run a fixed number of each; longer, with new seeds, until something breaks:

    python -m tests.unit.test_fuzz --seconds 600 [--seed 1] [--target replica]
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import pytest
from msgspec import structs

from node.effects import (
    Ban,
    BeginHandoff,
    CheckSignatures,
    Effect,
    FinishHandoff,
    Hold,
    Mine,
    Send,
    SendCheckpoint,
    SendParts,
    StoreParts,
)
from node.events import Instant, Recovered, Stored
from node.ledger.execution import InvalidBlock, execute
from node.ledger.rows import REPLAYED
from node.ledger.state import State
from node.membership import Membership
from node.protocol import epoch, messages
from node.protocol.block import Block
from node.protocol.certificate import FinalBlock, VoteKind, sign_vote
from node.protocol.channel import Bundle, CertifiedBundle, Decision, Prepare, PrepareVote, Record
from node.protocol.checkpoint import Branching, CertifiedCheckpoint, Ids, Part, Rows
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_BUNDLE_BYTES, MAX_FRAME_BYTES
from node.protocol.messages import Ballot, BundleDelivery, ChainReply, PeerMessage, Proposal, Standing
from node.protocol.puzzle import identity_prefix, search
from node.protocol.transaction import Transaction, decode_transaction
from node.replica.handing_over import HandingOver
from node.replica.replica import Replica
from signaling.phases import MAX_MESSAGE_BYTES, Coordinator, Saved
from tests.chains import TIME, Network, Shard, key
from tests.unit.damage import another, edited
from tests.unit.ledger_driver import Ledgers
from tests.unit.replicas import forge_bundle, signed
from tests.unit.test_taking_over import Source, make_parts_small
from tests.vectors.network import DOCUMENT, GENESIS, NETWORK, REGISTRATIONS, play

SHARDS = play()
STRANGER = key("stranger")
APPLICATIONS = [epoch.Application(REGISTRATIONS[0]), epoch.Acknowledgement(DOCUMENT.hash)]
SECRETS = NETWORK.secrets
APPLICATIONS += [epoch.Readiness(DOCUMENT.hash, bytes(64)), epoch.Reveal(1, bytes(32))]
ANNOUNCED = [*map(NETWORK.announcement, epoch.CONTENTS), epoch.ApplicationRefused("no")]
seen: Counter[str] = Counter()
"""What episodes reached, so that a fuzzer that only ever knocks at the door is noticed."""


def heard(random: Random, good: Iterable[object]) -> bytes:
    """One of these messages, damaged."""
    encoded = [encode(message) for message in good]
    return edited(random, random.choice(encoded), random.choice(encoded))


def check_sent(effects: Iterable[object], union: Any, limit: int) -> None:
    """Whatever would be sent must be readable for whom it is meant."""
    for effect in effects:
        message = getattr(effect, "message", None) or getattr(effect, "announcement", None)
        if message is not None:
            decode(union, encode(message), limit)


# -- the replica -----------------------------------------------------------------------------------------------------


def peer_messages(shard: Shard) -> list[PeerMessage]:
    """Messages of every kind as ``shard``'s members would send them at the head of its chain."""
    block = shard.build([NETWORK.pay(NETWORK.person(shard.number), NETWORK.person(1, 2), 5)]).block
    header, last = block.header, shard.chain[-1].finality.certificate
    nullified = shard.certificate(VoteKind.NULLIFY, header.view + 1, ZERO_HASH, (1, 2, 3))
    proposal = signed(shard, block)
    return [
        proposal,
        structs.replace(proposal, notarization=last, nullifications=(nullified,)),
        Ballot(proposal.vote),
        messages.Certified((last, nullified)),
        Standing(header.height, header.view),
        messages.ChainRequest(1),
        finals(shard, 0),
        finals(shard, len(shard.chain) - 2),
        messages.BodyRequest(header.view, header.hash),
        messages.BodyReply(block),
        messages.TransactionsRequest(header.hash, tuple(range(len(block.transactions)))),
        messages.TransactionsReply(header.hash, block.transactions),
        messages.BundleRequest(1 - shard.number, 1),
        messages.CheckpointRequest(0),
        messages.PartsRequest(len(shard.chain) - 2, (b"", b"\3")),
        messages.PartsReply(len(shard.chain) - 2, (Rows(b"", ((b"row", b"\1"),)), Ids(b"key", bytes(32)))),
        *(BundleDelivery(bundle) for outbox in shard.outboxes for bundle in outbox),
    ]


def finals(shard: Shard, height: int) -> ChainReply:
    """The blocks after ``height``."""
    return ChainReply(tuple(FinalBlock(c.block, c.finality) for c in shard.chain[height:]))


def state_at(shard: Shard, height: int) -> State:
    """The ledger after the first ``height`` blocks."""
    state, valid = State.genesis(shard.rules), Transaction.has_valid_signatures
    for block in (certified.block for certified in shard.chain[:height]):
        bundles = [decode(CertifiedBundle, data, MAX_BUNDLE_BYTES).bundle for data in block.bundles]
        transactions = [(t.id, t) for t in map(decode_transaction, block.transactions)]
        state.commit(execute(state, shard.rules, block.header.height, block.header.time, bundles, transactions, valid).overlay)
    return state


class Target:
    """An honest replica at some height of the true chain, and a world that answers its effects truthfully."""

    def __init__(self, shard: Shard, member: int, height: int) -> None:
        self.shard = shard
        self.bodies: dict[bytes, Block] = {}
        """Proposed by a liar, which gives what it is asked for of them."""
        self.now = 1_000
        recovered = Recovered(state_at(shard, height), shard.last(height), (), shard.peaks(height))
        self.replica = Replica(GENESIS, DOCUMENT, shard.members[member], "fuzzed", recovered, self.at)
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
        """Answer what has an answer; what would be stored must be the chain's."""
        check_sent(effects, PeerMessage, MAX_FRAME_BYTES)
        for effect in effects:
            if isinstance(effect, CheckSignatures):
                verdicts = [transaction.has_valid_signatures() for transaction in effect.transactions]
                self.perform(self.replica.on_signatures_checked(effect.token, verdicts, self.at))
            elif isinstance(effect, Mine):
                nonce = search(effect.prefix, effect.bits, 0, 1 << 20)
                assert nonce is not None
                self.perform(self.replica.on_mined(effect.token, nonce, self.at))
            elif isinstance(effect, Send) and isinstance(effect.message, messages.TransactionsRequest):
                self.give(effect.peer, effect.message)
            elif (certified := getattr(effect, "block", None)) is not None:
                seen["committed"] += 1
                true = self.shard.chain[certified.block.header.height - 1]
                assert certified.block == true.block, "a block that is not the chain's is stored"
                assert certified.effects == true.effects
                assert certified.is_valid(self.shard.electorate)

    def give(self, peer: bytes, request: messages.TransactionsRequest) -> None:
        """What a liar proposed, if it is asked for that."""
        if (body := self.bodies.get(request.block)) is not None:
            seen["asked"] += 1
            sent = tuple(body.transactions[place] for place in request.places)
            self.perform(self.replica.on_message(peer, messages.TransactionsReply(request.block, sent), self.at))

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
        block = another(random, block)
    header = block.header
    if random.random() < 0.8:
        header = structs.replace(header, payload_root=block.payload_root(), view=view, proposer=liar)
    block = shard.mined(structs.replace(block, header=header))
    proposal = signed(shard, block, liar)
    target.bodies[proposal.vote.block] = block
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
    return forge_bundle(source, target.shard.number, sequence, another(random, bundle).records)


def replica(random: Random) -> None:
    """A member hears damaged messages from one lying member, from nodes of the other shard and from strangers."""
    shard = random.choice(SHARDS)
    liar = random.randrange(4)
    height = random.choice((0, 1, len(shard.chain) - 1, len(shard.chain)))
    target = Target(shard, (liar + random.randrange(1, 4)) % 4, height)
    member, outsider = shard.electorate.keys[liar], SHARDS[1 - shard.number].electorate.keys[0]
    valid = peer_messages(shard)
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
            target.hear(member, Standing(len(shard.chain) + random.choice((0, 5)), random.randrange(30)))
            target.wait(random.choice((0, 350, 3_100)))  # it asks for blocks after some patience
            _hear_damaged(random, target, peer, [finals(shard, target.replica.state.height)])
        else:
            _hear_damaged(random, target, peer, valid)
        if random.random() < 0.2:
            target.wait(random.choice((1, 60, 1_000, 4_000)))


def liar_vote(random: Random, target: Target, liar: int) -> PeerMessage:
    shard, consensus = target.shard, target.replica.consensus
    view = max(0, consensus.view + random.choice((-2, -1, 0, 0, 0, 1, 2, 49, 51, 2**50)))
    block = random.choice((ZERO_HASH, consensus.tree.root_hash, random.randbytes(32), shard.head.hash))
    signer = random.choice((liar, liar, 255))
    return Ballot(sign_vote(shard.members[liar], signer, shard.electorate, random.choice(list(VoteKind)), view, block))


def _hear_damaged(random: Random, target: Target, peer: bytes, good: list[PeerMessage]) -> None:
    """One of a few damaged ones that still decodes, if there is one."""
    for _ in range(8):
        try:
            message = decode(cast(Any, PeerMessage), heard(random, good), MAX_FRAME_BYTES)
        except DecodeError:
            continue
        seen["heard"] += 1
        target.hear(peer, message)
        return


# -- execution -------------------------------------------------------------------------------------------------------


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
        bundle = another(random, Bundle(source, here, sequence, records))
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
            return Prepare(encode(another(random, payment)), ledgers.now + random.choice((0, 500, 1_000, 10**6)))
        case 1:
            return PrepareVote(random.choice(ids), random.choice(list(Code)))
        case _:
            return Decision(random.choice(ids), random.random() < 0.5)


# -- handing over ----------------------------------------------------------------------------------------------------


class Handed(NamedTuple):
    """A shard, and all that it hands over."""

    network: Network
    shard: Shard
    proof: CertifiedCheckpoint
    parts: dict[bytes, Part]

    def answer(self, request: PeerMessage) -> PeerMessage:
        if isinstance(request, messages.CheckpointRequest):
            return messages.CheckpointReply(self.proof)
        assert isinstance(request, messages.PartsRequest)
        return messages.PartsReply(request.height, tuple(self.parts[place] for place in request.places[:2]))


@cache
def handed() -> Handed:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        make_parts_small(patch)
        source = Source(Path(folder) / "source.db")
        with closing(source.storage):
            return Handed(source.network, source.shard, source.offer, source.all_parts())


def handoff(random: Random) -> None:
    """A member without a ledger is handed one by three, of whom one lies; who lies is dropped, and all that is stored is true."""
    source = handed()
    shard, now, told = source.shard, 1_000, dict[bytes, Part]()
    recovered = Recovered(State.genesis(shard.rules), None, ())
    begun = Instant(now, TIME + now)
    taking = Replica(source.network.genesis, source.network.document, shard.members[3], "fuzzed", recovered, begun)
    liar = shard.electorate.keys[random.randrange(3)]
    waiting: list[tuple[bytes, PeerMessage]] = [(peer, Standing(len(shard.chain), 1)) for peer in shard.electorate.keys[:3]]
    while now < 100_000:
        effects = taking.on_tick(Instant(now, TIME + now))
        for peer, message in waiting:
            effects += taking.on_message(peer, message, Instant(now, TIME + now))
        waiting = []
        for effect in effects:
            match effect:
                case Send(peer, messages.CheckpointRequest() | messages.PartsRequest() as request):
                    waiting.append((peer, source.answer(request)))
                case BeginHandoff():
                    told = {}
                case StoreParts(parts):
                    assert all(source.parts[part.place] == part for part in parts), "another part is stored"
                    told |= {part.place: part for part in parts}
                case FinishHandoff(checkpoint):
                    assert checkpoint == source.proof
                    assert told == {place: part for place, part in source.parts.items() if not isinstance(part, Branching)}
                    seen["taken over"] += 1
                    return
                case Ban(peer):
                    assert peer == liar, "an honest one is dropped"
                    seen["liar dropped"] += 1
                    effects += taking.on_peer_down(peer, Instant(now, TIME + now))
        waiting = [(peer, _false(random, message) if peer == liar else message) for peer, message in waiting]
        now += random.choice((1, 100, 600))
    raise AssertionError("the state is not taken over")


def _false(random: Random, message: PeerMessage) -> PeerMessage:
    """A damaged one that still decodes, if there is one in a few attempts."""
    for _ in range(8):
        with suppress(DecodeError):
            return cast(PeerMessage, decode(cast(Any, PeerMessage), heard(random, [message]), MAX_FRAME_BYTES))
    return message


def asked(random: Random) -> None:
    """A member that has a checkpoint is asked for it by a liar: it has read what is a part, and nothing else."""
    source, now = handed(), 0
    height, liar = source.proof.header.height, source.shard.electorate.keys[0]
    serving, places = HandingOver(source.shard.state), list(source.parts)
    for _ in range(20):
        some = tuple(random.sample(places, random.randrange(1, 5)))
        request = _false(random, random.choice((messages.CheckpointRequest(0), messages.PartsRequest(height, some))))
        if not isinstance(request, messages.CheckpointRequest | messages.PartsRequest):
            continue
        for effect in serving.answer(liar, request, now):
            match effect:
                case SendParts(_, at, wanted):
                    assert at == height
                    for one in wanted:
                        place = one.place if isinstance(one, Branching) else one
                        assert not isinstance(one, Branching) or source.parts[place] == one
                        assert place in source.parts or place.endswith(REPLAYED), "no part, and all of it is read"
                    seen["parts sent"] += 1
                case SendCheckpoint(_, at, certified_at, root):
                    assert (at, certified_at, root) == (height, source.proof.certifying.height, source.proof.root)
                case Ban():
                    assert isinstance(request, messages.PartsRequest)
                    assert not source.parts.keys() >= set(request.places)
                    seen["asker dropped"] += 1
                case Send(_, reply):
                    assert isinstance(request, messages.PartsRequest)
                    assert reply == messages.PartsReply(request.height, ())
                    assert request.height != height
                case Hold(held):
                    assert held == height
        now += random.choice((1, 3_000))


# -- signaling -------------------------------------------------------------------------------------------------------


def coordinator(random: Random) -> None:
    """The coordinator hears damaged applications, also properly signed and mined ones: what it publishes stays valid."""
    machine = Coordinator(GENESIS, NETWORK.coordinator, 600, 900, Saved())
    peers = [*NETWORK.nodes.values(), STRANGER]
    for now in range(0, 1_800, 30):
        peer, kind = random.choice(peers), random.random()
        machine.connect(peer.public, now)
        if kind < 0.4:
            data = encode(epoch.Application(_application(random, peer)))
        elif kind < 0.6:
            own = [registration for registration in REGISTRATIONS if registration.public_key == peer.public]
            data = encode(epoch.Application((own or REGISTRATIONS)[0]))
        elif kind < 0.9 and peer.public in SECRETS:
            data = encode(epoch.Reveal(machine.attempt, SECRETS[peer.public]))
        else:
            data = heard(random, APPLICATIONS)
        effects = [*machine.receive(peer.public, data, now), *(machine.tick(now) if random.random() < 0.2 else [])]
        check_sent(effects, epoch.FromCoordinator, MAX_FRAME_BYTES)
        if random.random() < 0.1:
            machine.disconnect(peer.public, now)
    seen["registered"] += len(machine.registrations)
    for registration in machine.registrations.values():
        registration.check(GENESIS, 1, machine.attempt, GENESIS.hash)
    if machine.content is not None:
        seen["documents"] += machine.document is not None
        machine.content.check(GENESIS)


def _application(random: Random, peer: KeyPair) -> epoch.Registration:
    changed = another(random, random.choice(REGISTRATIONS))
    nonce = search(identity_prefix(GENESIS.network, 1, GENESIS.hash, peer.public), 8, 0, 1 << 16)
    assert nonce is not None
    changed = structs.replace(changed, public_key=peer.public, nonce=nonce)
    if random.random() < 0.7:
        changed = structs.replace(changed, network=GENESIS.network, epoch=1, attempt=1)
    return changed.signed(peer)


def membership(random: Random) -> None:
    """A node hears damaged announcements, also such as the coordinator itself signed: it keeps one valid document, or none."""
    node = random.choice(list(NETWORK.nodes.values()))
    machine = Membership(GENESIS, node, "node", ("/ip4/192.0.2.1/tcp/1",), Stored(bytes(32)))
    accepted, begun = None, False
    for _ in range(40):
        machine.connected()
        data = encode(_announcement(random)) if random.random() < 0.5 else heard(random, ANNOUNCED)
        effects = machine.received(data) + (machine.ready() if random.random() < 0.1 else [])
        check_sent(effects, epoch.ToCoordinator, MAX_MESSAGE_BYTES)
        assert accepted is None or machine.document == accepted or (machine.document is not None and not begun)
        assert machine.begun or not begun
        accepted, begun = machine.document, machine.begun
        if accepted is not None:
            accepted.check_first(GENESIS)
    seen["accepted"] += accepted is not None
    seen["begun"] += begun


def _announcement(random: Random) -> epoch.Announcement:
    """Signed by the coordinator, whatever it says."""
    document = another(random, DOCUMENT) if random.random() < 0.5 else DOCUMENT
    phase = random.choice(list(epoch.CONTENTS))
    contents: dict[Phase, epoch.Content] = {Phase.REVEAL: NETWORK.sign_roll(another(random, NETWORK.roll))}
    contents |= {Phase.ASSIGNMENT: NETWORK.sign_document(document), Phase.HANDOFF: NETWORK.sign_document(document)}
    contents |= {Phase.MINING: structs.replace(NETWORK.opening, signed=NETWORK.sign_document(document))}
    notice = epoch.PhaseNotice(GENESIS.network, 1, random.choice((1, 1, 1, 2)), phase, TIME, 9)
    if random.random() < 0.2:
        notice = another(random, notice)
    return epoch.Announcement(notice.signed(NETWORK.coordinator), contents.get(phase))


# -- running ---------------------------------------------------------------------------------------------------------

Episode = Callable[[Random], None]
TARGETS: dict[str, tuple[Episode, int, tuple[str, ...]]] = {
    "replica": (replica, 40, ("heard", "proposals", "asked", "committed")),
    "execution": (execution, 40, ("block refused", "block executed")),
    "handoff": (handoff, 40, ("taken over", "liar dropped")),
    "asked": (asked, 40, ("parts sent", "asker dropped")),
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
    end, seed = time.monotonic() + options.seconds, options.seed
    while time.monotonic() < end:
        for target in options.target or TARGETS:
            run(target, seed)
        seed += 1
    print(f"seeds {options.seed} to {seed - 1}; reached:", dict(seen))


if __name__ == "__main__":
    main()
