"""Successions: only the closing blocks of all shards, each by its committee, put a document in force: the one that follows."""

from typing import Any

import pytest
from msgspec.structs import replace

from node.protocol.assignment import next_document
from node.protocol.block import Totals
from node.protocol.certificate import Finality, VoteKind
from node.protocol.change import Bulletin, Change, Register, RegisterPhase, Stage
from node.protocol.codec import decode, encode
from node.protocol.epoch import EpochDocument, InvalidDocument
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.succession import Succession
from tests.chains import Network

NETWORK = Network()
PREVIOUS, PARAMETERS = NETWORK.document, NETWORK.genesis.parameters
HEIGHT, ATTEMPT = 9, 3
REGISTER = Register(
    phase=RegisterPhase.CLOSED,
    since=0,
    not_before=0,
    registrations=tuple(replace(r, epoch=2, attempt=ATTEMPT) for r in NETWORK.roll.registrations),
    secrets=tuple(sorted(NETWORK.secrets.items())),
)
DOCUMENT = next_document(PREVIOUS, REGISTER, ATTEMPT, PARAMETERS)
TOTALS = Totals((), 0)


def bulletin(number: int, change: Change, epoch: int = 1, by: int | None = None, **header: Any) -> Bulletin:
    """By a quorum of the shard's members, or of those of ``by``."""
    shard = NETWORK.shards[number]
    place = {"document": PREVIOUS.hash, "height": HEIGHT, "totals_hash": TOTALS.hash(), "change_hash": change.hash}
    told = replace(shard.genesis, **{**place, **header})
    keys = NETWORK.shards[number if by is None else by].members
    return Bulletin(epoch, told, Finality((), shard.certificate(VoteKind.FINALIZE, told.view, told.hash, keys=keys)), change)


def closed(number: int, **change: Any) -> Change:
    fields = {"attempt": ATTEMPT, "document": DOCUMENT.hash, "closed": HEIGHT, "totals": TOTALS}
    return Change(Stage.CLOSED, **{**fields, "register": None if number else REGISTER, **change})


CLOSINGS = (bulletin(0, closed(0)), bulletin(1, closed(1)))


def test_the_closings_of_all_shards_put_the_document_in_force_that_follows() -> None:
    succession = decode(Succession, encode(Succession(CLOSINGS)), MAX_FRAME_BYTES)
    assert succession.number == 2
    assert succession.next_document(PREVIOUS, PARAMETERS) == DOCUMENT


OTHER = replace(REGISTER, registrations=REGISTER.registrations[1:], secrets=REGISTER.secrets[1:])


@pytest.mark.parametrize(
    ("closings", "why"),
    [
        (CLOSINGS[:1], "one closing bulletin of each shard"),
        (CLOSINGS[::-1], "one closing bulletin of each shard"),
        ((CLOSINGS[0], CLOSINGS[0]), "one closing bulletin of each shard"),
        ((*CLOSINGS, CLOSINGS[1]), "one closing bulletin of each shard"),
        ((CLOSINGS[0], bulletin(1, closed(1), by=0)), "shard 1: not by its committee of epoch 1"),
        ((CLOSINGS[0], bulletin(1, closed(1), document=bytes(32))), "shard 1: not by its committee of epoch 1"),
        ((bulletin(0, closed(0), epoch=2), CLOSINGS[1]), "shard 0: not by its committee of epoch 1"),
        ((CLOSINGS[0], replace(CLOSINGS[1], change=closed(1, counted=1))), "shard 1: not by its committee of epoch 1"),
        ((CLOSINGS[0], bulletin(1, replace(closed(1), stage=Stage.SETTLED))), "shard 1: not its closing block"),
        ((CLOSINGS[0], bulletin(1, closed(1), height=HEIGHT + 1)), "shard 1: not its closing block"),
        ((CLOSINGS[0], bulletin(1, closed(1, totals=None))), "shard 1: not with the totals"),
        ((CLOSINGS[0], bulletin(1, closed(1, totals=Totals((), 1)))), "shard 1: not with the totals"),
        ((bulletin(0, closed(0, register=None)), CLOSINGS[1]), "the register is not closed"),
        (
            (bulletin(0, closed(0, register=replace(REGISTER, phase=RegisterPhase.SETTLEMENT))), CLOSINGS[1]),
            "the register is not closed",
        ),
        ((CLOSINGS[0], bulletin(1, closed(1, register=REGISTER))), "another shard than the first"),
        ((CLOSINGS[0], bulletin(1, closed(1, attempt=ATTEMPT - 1))), "shard 1 closed for another attempt or document"),
        ((CLOSINGS[0], bulletin(1, closed(1, document=bytes(32)))), "shard 1 closed for another attempt or document"),
        ((bulletin(0, closed(0, document=bytes(32))), CLOSINGS[1]), "shard 0 closed for another attempt or document"),
        ((bulletin(0, closed(0, attempt=ATTEMPT + 1)), CLOSINGS[1]), "another network, epoch or attempt"),
        ((bulletin(0, closed(0, register=OTHER)), CLOSINGS[1]), "shard 0 closed for another attempt or document"),
    ],
)
def test_what_is_not_the_closing_of_each_shard_by_its_committee_puts_nothing_in_force(
    closings: tuple[Bulletin, ...], why: str
) -> None:
    with pytest.raises(InvalidDocument, match=why):
        Succession(closings).next_document(PREVIOUS, PARAMETERS)


def test_a_succession_counts_after_the_document_that_it_is_of_and_after_no_other() -> None:
    other: EpochDocument = replace(PREVIOUS, attempt=2)
    with pytest.raises(InvalidDocument, match="not by its committee"):
        Succession(CLOSINGS).next_document(other, PARAMETERS)
