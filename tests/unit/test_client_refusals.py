"""Refusals of transactions: one member's word is none."""

from node.client.refusals import RefusalTally
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.topics import Refusal, Refusals
from tests.chains import Network

SHARD = Network().shards[0]
TRANSACTION, OTHER = bytes(31) + b"\x01", bytes(31) + b"\x02"


def refusals(member: int, *items: Refusal) -> bytes:
    return encode(Refusals(0, 1, member, items).signed(SHARD.members[member]))


def test_what_more_than_f_members_refuse_alike_is_agreed() -> None:
    tally = RefusalTally(SHARD.electorate)
    refused = Refusal(TRANSACTION, Code.UNKNOWN_ASSET)
    assert tally.hear(refusals(0, refused), {TRANSACTION}) == []
    assert tally.hear(refusals(0, refused), {TRANSACTION}) == []
    assert tally.hear(refusals(1, Refusal(TRANSACTION, Code.EXPIRED)), {TRANSACTION}) == []
    assert tally.hear(refusals(2, refused), {TRANSACTION}) == [(TRANSACTION, Code.UNKNOWN_ASSET)]


def test_only_signed_refusals_of_wanted_transactions_count() -> None:
    tally = RefusalTally(SHARD.electorate)
    item = Refusal(TRANSACTION, Code.UNKNOWN_ASSET)
    forged = encode(Refusals(0, 1, 1, (item,)).signed(SHARD.members[2]))
    assert tally.hear(refusals(0, item, Refusal(OTHER, Code.UNKNOWN_ASSET)), {TRANSACTION}) == []
    assert tally.hear(forged, {TRANSACTION}) == []
    assert tally.hear(b"junk", {TRANSACTION}) == []
    assert tally.hear(refusals(1, Refusal(OTHER, Code.UNKNOWN_ASSET)), {OTHER}) == []


def test_what_is_final_is_forgotten() -> None:
    tally = RefusalTally(SHARD.electorate)
    item = Refusal(TRANSACTION, Code.UNKNOWN_ASSET)
    tally.hear(refusals(0, item), {TRANSACTION})
    tally.forget(TRANSACTION)
    assert tally.hear(refusals(1, item), {TRANSACTION}) == []
