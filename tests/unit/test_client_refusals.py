"""Refusals of transactions: one member's word is none."""

from node.client.refusals import RefusalTally
from node.protocol.codec import encode
from node.protocol.codes import Code
from node.protocol.topics import Refusal, Refusals
from tests.chains import Network

SHARD = Network().shards[0]
TRANSACTION, OTHER = bytes(31) + b"\x01", bytes(31) + b"\x02"


def refusals(member: int, *items: Refusal) -> bytes:
    return encode(Refusals(0, member, items).signed(SHARD.members[member], SHARD.electorate))


def test_what_more_than_f_members_refuse_alike_is_agreed_if_signed_wanted_and_not_final() -> None:
    tally, refused = RefusalTally(SHARD.electorate), Refusal(TRANSACTION, Code.UNKNOWN_ASSET)
    forged = encode(Refusals(0, 1, (refused,)).signed(SHARD.members[2], SHARD.electorate))
    unwanted = Refusal(OTHER, Code.UNKNOWN_ASSET)
    once = refusals(0, refused, unwanted)
    for body in (once, once, refusals(1, Refusal(TRANSACTION, Code.EXPIRED)), forged, b"junk"):
        assert tally.hear(body, {TRANSACTION}) == []
    assert tally.hear(refusals(1, unwanted), {OTHER}) == []
    agreed = [(TRANSACTION, Code.UNKNOWN_ASSET)]
    assert tally.hear(refusals(2, refused), {TRANSACTION}) == agreed
    tally.forget(TRANSACTION)
    assert tally.hear(refusals(1, refused), {TRANSACTION}) == []
    assert tally.hear(refusals(3, refused), {TRANSACTION}) == agreed
