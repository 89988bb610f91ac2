"""What happened in a run, as a person reads it: who sent what to whom, what was persisted, what broke."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from node.effects import (
    Abandon,
    AcceptDocument,
    Begin,
    BeginHandoff,
    Checkpoint,
    Commit,
    FinishHandoff,
    Hold,
    Journal,
    LoseVotes,
    Persist,
    Pledge,
    Retire,
    Row,
    StoreParts,
)
from node.protocol.address import encode_address
from node.protocol.certificate import Certificate, Vote, VoteKind
from node.protocol.channel import Bundle, Decision, Figures, Prepare, PrepareVote
from node.protocol.epoch import Opening
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    BundleDelivery,
    BundleName,
    BundleRequest,
    BundleWanted,
    Certified,
    ChainReply,
    ChainRequest,
    CheckpointReply,
    CheckpointRequest,
    PartsReply,
    PartsRequest,
    PeerMessage,
    Proposal,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from node.protocol.transaction import Action, Transaction, decode_transaction

if TYPE_CHECKING:
    from tests.simulation.host import Host

_DETAILED = 90
_OVERVIEW = 60


class Story:
    """Collects what happens, and tells it: the outline of the whole run, and its end in every detail."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, bool, str]] = []
        """(when, whether it is part of the outline, text)"""
        self._sending: tuple[int, Host, PeerMessage] | None = None
        self._targets: list[Host] = []

    def happened(self, time: int, who: object, what: str, text: str = "", thing: object = None) -> None:
        self._flush()
        if isinstance(thing, Transaction):
            text = describe_transaction(thing)
        subject = "" if who is None else f"{who} "
        self._lines.append((time, not what.startswith(("notes", "stores")), f"{subject}{what} {text}".rstrip()))

    def persisted(self, time: int, node: "Host", effects: Sequence[Row | Persist]) -> None:
        self._flush()
        self._lines.append((time, False, f"{node} persists {'; '.join(map(_describe_persist, effects))}"))

    def sent(self, time: int, source: "Host", target: "Host", message: PeerMessage) -> None:
        if isinstance(message, Standing):
            return
        sending = (time, source, message)
        if self._sending is None or self._sending[:2] != sending[:2] or self._sending[2] is not message:
            self._flush()
            self._sending = sending
        self._targets.append(target)

    def _flush(self) -> None:
        if self._sending is not None:
            time, source, message = self._sending
            targets = ", ".join(dict.fromkeys(map(str, self._targets)))
            self._lines.append((time, False, f"{source} sends {describe(message)} to {targets}"))
            self._sending, self._targets = None, []

    def count(self, text: str) -> int:
        """How often something was told with this in it."""
        return sum(text in line for _, _, line in self._lines)

    def tell(self) -> str:
        """The timeline, ms from the start."""
        self._flush()
        detailed = len(self._lines) - _DETAILED
        outline = [line for line in self._lines[: max(0, detailed)] if line[1]]
        skipped = len(outline) - _OVERVIEW
        if skipped > 0:
            outline = [
                *outline[: _OVERVIEW // 2],
                (outline[_OVERVIEW // 2][0], True, f"({skipped} lines)"),
                *outline[-_OVERVIEW // 2 :],
            ]
        cut = [(outline[-1][0], True, "--- from here on every message ---")] if outline and detailed > 0 else []
        lines = [*outline, *cut, *self._lines[max(0, detailed) :]]
        return "\n".join(f"{time:>7} ms  {text}" for time, _, text in lines)


def describe(message: PeerMessage) -> str:
    """A message in a few words."""
    match message:
        case Proposal(block, _, notarization, nullifications):
            h = block.header
            on = f"on {h.parent.hex()[:6]}" + (f" (notarized in view {notarization.view})" if notarization else "")
            skipped = f", {len(nullifications)} views nullified" if nullifications else ""
            content = f"{len(block.leaves)} transactions, {len(block.bundles)} bundles"
            return f"proposal {h.hash.hex()[:6]} view {h.view} height {h.height} {on}{skipped}: {content}"
        case Ballot(vote):
            return f"vote {_describe_vote(vote)}"
        case Certified(certificates):
            return "certificates " + ", ".join(map(_describe_certificate, certificates))
        case ChainRequest(first):
            return f"request for final blocks from {first}"
        case ChainReply(blocks):
            return f"final blocks {', '.join(str(b.block.header.height) for b in blocks)}"
        case BodyRequest(view, hash):
            return f"request for block {hash.hex()[:6]} of view {view}"
        case BodyReply(block):
            return f"block {block.header.hash.hex()[:6]}"
        case BundleDelivery(certified):
            return describe_bundle(certified.bundle)
        case BundleName(source, sequence):
            return f"name of bundle {sequence} of shard {source}"
        case BundleWanted(source, destination, sequence):
            return f"request for bundle {sequence} of shard {source} to shard {destination}"
        case BundleRequest(destination, sequence):
            return f"request for bundles to shard {destination} from {sequence}"
        case TransactionsRequest(hash, places):
            return f"request for {len(places)} transactions of block {hash.hex()[:6]}"
        case TransactionsReply(hash, transactions):
            return f"{len(transactions)} transactions of block {hash.hex()[:6]}"
        case CheckpointRequest(above):
            return f"request for a checkpoint above {above}"
        case CheckpointReply(checkpoint):
            return f"checkpoint {checkpoint.header.height}"
        case PartsRequest(height, places):
            return f"request for {len(places)} parts of checkpoint {height}"
        case PartsReply(height, parts):
            return f"{len(parts)} parts of checkpoint {height}"
        case Standing(height, view):
            return f"status height {height} view {view}"


def describe_bundle(bundle: Bundle) -> str:
    records = []
    for record in bundle.records:
        if isinstance(record, Prepare):
            records.append(f"prepare {decode_transaction(record.transaction).id.hex()[:8]}")
        elif isinstance(record, PrepareVote):
            records.append(f"vote {'yes' if not record.code else f'no ({record.code})'} {record.transaction_id.hex()[:8]}")
        elif isinstance(record, Figures):
            records.append(f"figures of {sorted({figure.shard for figure in record.figures})}")
        elif not isinstance(record, Decision):
            records.append(f"{type(record).__name__} of attempt {record.attempt}")
        else:
            records.append(f"{'commit' if record.commit else 'abort'} {record.transaction_id.hex()[:8]}")
    return f"bundle {bundle.sequence} from shard {bundle.source} to {bundle.destination} [{', '.join(records)}]"


def describe_transaction(transaction: Transaction) -> str:
    legs = []
    for leg in transaction.order.legs:
        payer, payee = (encode_address(address)[5:11] for address in (leg.payer, leg.payee))
        what = f"{leg.amount} {leg.asset}" if leg.action is Action.PAY else f"{leg.action.name.lower()} {leg.asset}"
        legs.append(f"{payer} -> {payee} {what}")
    return f"transaction {transaction.id.hex()[:8]}: {', '.join(legs)}"


def _describe_vote(vote: Vote) -> str:
    block = "" if vote.kind is VoteKind.NULLIFY else f" {vote.block.hex()[:6]}"
    return f"{vote.kind.name.lower()}{block} view {vote.view} of member {vote.signer}"


def _describe_certificate(certificate: Certificate) -> str:
    block = "" if certificate.kind is VoteKind.NULLIFY else f" {certificate.block.hex()[:6]}"
    return f"{certificate.kind.name.lower()}{block} view {certificate.view} by {list(certificate.signers)}"


def _describe_persist(effect: Row | Persist) -> str:
    match effect:
        case Journal(view, slot):
            return f"{slot} of view {view}"
        case Commit(height, _, certified):
            return f"final block {height} {certified.block.header.hash.hex()[:6]}"
        case Checkpoint(height, rows, certified_at):
            return f"{len(rows)} rows of checkpoint {height}" + ("" if certified_at is None else ", which is whole")
        case Pledge(attempt, _, roll):
            return f"roll of attempt {attempt}" if roll else f"secret of attempt {attempt}"
        case LoseVotes():
            return "that its votes are lost"
        case Hold(height):
            return f"that checkpoint {height} is held" if height is not None else "that no checkpoint is held"
        case BeginHandoff():
            return "that a state is to be fetched"
        case StoreParts(parts):
            return f"{len(parts)} parts of a checkpoint"
        case FinishHandoff(checkpoint):
            return f"that its ledger begins with checkpoint {checkpoint.header.height}"
        case AcceptDocument(accepted):
            return "epoch document in force" if isinstance(accepted, Opening) else "epoch document"
        case Begin(succession):
            return f"that epoch {succession.number} has begun"
        case Abandon(chain):
            return f"that chain {chain.epoch}-{chain.shard} is not needed"
        case Retire(chain):
            return f"that chain {chain.epoch}-{chain.shard} is over"
