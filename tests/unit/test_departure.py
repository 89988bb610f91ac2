"""When a node that is to leave may end: not before others keep what it kept."""

from msgspec.structs import replace

from node.chronicle import Chronicle
from node.departure import Departure
from node.protocol.bulletins import GetChange, decode_ask
from node.protocol.change import Change, RegisterPhase
from node.protocol.codec import encode
from node.protocol.epoch import EpochDocument
from tests.chains import Network
from tests.successions import bulletin, register, succession, told_of

NETWORK = Network(standby=4)
NODES = list(NETWORK.nodes.values())
FIRST = NETWORK.document
ME = NETWORK.nodes[FIRST.committees[1].members[1].public_key]
OTHERS = [node for node in NODES if node is not ME]
TO_SECOND = succession(NETWORK, FIRST, OTHERS)
SECOND = TO_SECOND.next_document(FIRST, NETWORK.genesis.parameters)
HEIRS = sorted(SECOND.children_of(FIRST.committees[1].shard))


class Leaving:
    def __init__(self) -> None:
        self.chronicle = Chronicle(NETWORK.genesis)
        self.departure = Departure(ME.public, self.chronicle)
        self.chronicle.begin(FIRST)

    def hear(self, body: bytes) -> bool:
        self.chronicle.hear(body)
        self.departure.hear(body)
        return self.departure.is_over

    def mines(self, shard: int, document: EpochDocument = SECOND, height: int = 1) -> bool:
        """Whether it is over with a block of this shard."""
        return self.hear(encode(bulletin(NETWORK, document, shard, Change(), height)))


def test_it_is_over_when_each_shard_that_came_from_its_own_has_a_final_block() -> None:
    assert HEIRS == [1], "another shard than the register, of which it hears anyway"
    leaving = Leaving()
    assert not leaving.mines(0, FIRST)
    leaving.departure.begin()
    assert not leaving.hear(told_of(TO_SECOND)), "nobody has shown that it has the state"
    assert [decode_ask(ask) for ask in leaving.departure.asks()] == [GetChange(2, shard) for shard in HEIRS]
    others = [committee.shard for committee in SECOND.committees if committee.shard not in (*HEIRS, SECOND.register)]
    assert not any(leaving.mines(shard) for shard in others)
    forged = bulletin(NETWORK, SECOND, HEIRS[0], Change())
    assert not leaving.hear(encode(replace(forged, change=Change(attempt=2))))
    assert not leaving.hear(b"junk")
    assert not leaving.mines(SECOND.register)
    assert leaving.mines(HEIRS[0])
    assert leaving.departure.asks() == []


def test_it_is_not_over_while_it_has_a_seat_or_may_come_to_one_or_nobody_asked_for_it() -> None:
    staying = Leaving()
    staying.hear(told_of(TO_SECOND))
    assert not any(staying.mines(shard) for shard in [*HEIRS, SECOND.register])
    leaving = Leaving()
    leaving.departure.begin()
    assert not leaving.mines(0, FIRST), "it has a seat"
    leaving.hear(told_of(TO_SECOND))
    written = register(NETWORK, SECOND, RegisterPhase.REVEAL, NODES)
    leaving.mines(HEIRS[0])
    assert not leaving.hear(encode(bulletin(NETWORK, SECOND, SECOND.register, Change(register=written), 2))), "it is registered"
    written = register(NETWORK, SECOND, RegisterPhase.REGISTRATION, OTHERS)
    assert leaving.hear(encode(bulletin(NETWORK, SECOND, SECOND.register, Change(register=written), 3)))
