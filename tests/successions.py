"""What committees certify of the change of epochs, made without any chain: bulletins that prove themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from node.protocol.assignment import next_document
from node.protocol.block import Header, Totals
from node.protocol.bulletins import Successions
from node.protocol.certificate import Finality, VoteKind, make_certificate, sign_vote
from node.protocol.change import Bulletin, Change, Register, RegisterPhase, Stage
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, KeyPair, digest
from node.protocol.epoch import EpochDocument, Registration, commitment_to
from node.protocol.puzzle import identity_prefix, search
from node.protocol.succession import Succession
from tests.chains import TIME, Network

EMPTY = Totals((), 0)


def secret_of(public_key: bytes, epoch: int) -> bytes:
    return digest("test secret", public_key, epoch.to_bytes(8, "big"))


def enrolled(network: Network, current: EpochDocument, node: KeyPair, attempt: int = 1) -> Registration:
    """A valid registration for the epoch after ``current``."""
    epoch, secret = current.number + 1, secret_of(node.public, current.number + 1)
    prefix = identity_prefix(current.network, epoch, current.hash, node.public)
    nonce = search(prefix, network.genesis.parameters.puzzle_difficulty_bits, 0, 1 << 20)
    assert nonce is not None
    name, addresses = f"node-{node.public.hex()[:8]}", ("/ip4/192.0.2.1/tcp/8100",)
    unsigned = Registration(current.network, epoch, attempt, node.public, name, addresses, nonce, commitment_to(secret))
    return unsigned.signed(node)


def register(
    network: Network,
    current: EpochDocument,
    phase: RegisterPhase,
    nodes: Iterable[KeyPair] = (),
    attempt: int = 1,
    **fields: Any,
) -> Register:
    """In ``phase``, with all these registered; from phase handoff on all of them have told their secrets."""
    registrations = sorted((enrolled(network, current, node, attempt) for node in nodes), key=lambda r: r.public_key)
    has_told = phase > RegisterPhase.REVEAL
    secrets = tuple((r.public_key, secret_of(r.public_key, current.number + 1)) for r in registrations if has_told)
    return replace(Register(phase, since=TIME, not_before=TIME, registrations=tuple(registrations), secrets=secrets), **fields)


def bulletin(network: Network, current: EpochDocument, shard: int, change: Change, height: int = 1) -> Bulletin:
    """Signed by a quorum of the shard's committee."""
    electorate = current.electorates[shard]
    header = Header(
        document=electorate.document,
        shard=shard,
        view=height,
        height=height,
        parent=ZERO_HASH,
        skip=ZERO_HASH,
        time=TIME + height,
        proposer=0,
        payload_root=ZERO_HASH,
        receipts_root=ZERO_HASH,
        outbox_root=ZERO_HASH,
        changes_hash=ZERO_HASH,
        totals_hash=(change.totals or EMPTY).hash(),
        change_hash=change.hash,
        state_root=ZERO_HASH,
        nonce=bytes(8),
    )
    votes = [
        sign_vote(network.nodes[electorate.keys[i]], i, electorate, VoteKind.FINALIZE, height, header.hash)
        for i in range(electorate.quorum)
    ]
    return Bulletin(current.number, header, Finality((), make_certificate(votes, electorate)), change)


def succession(
    network: Network, current: EpochDocument, nodes: Iterable[KeyPair], height: int = 9, totals: Mapping[int, Totals] = {}
) -> Succession:
    """All shards close at ``height``; ``nodes`` are there in the next epoch."""
    written = register(network, current, RegisterPhase.CLOSED, nodes)
    document = next_document(current, written, 1, network.genesis.parameters)
    closings = []
    for shard in current.shards.shards:
        change = Change(
            stage=Stage.CLOSED,
            document=document.hash,
            closed=height,
            totals=totals.get(shard, EMPTY),
            register=written if shard == current.register else None,
        )
        closings.append(bulletin(network, current, shard, change, height))
    return Succession(tuple(closings))


def told_of(*successions: Succession) -> bytes:
    """Consecutive ones, as a message of the bulletins topic."""
    return encode(Successions.of(successions))
