"""Which chains a node has a part in, and what it keeps of those that are over."""

from node.chronicle import Chronicle
from node.duties import Duties
from node.effects import Abandon, In, Recover
from node.events import For, Recovered
from node.ledger.state import State
from node.protocol.chain import Chain
from tests.chains import Network
from tests.successions import succession
from tests.unit.replicas import at

NETWORK = Network(committees=2, standby=1)
FIRST = NETWORK.document
TO_SECOND = succession(NETWORK, FIRST, NETWORK.nodes.values())
SECOND = TO_SECOND.next_document(FIRST, NETWORK.genesis.parameters)
NEWCOMER = next(
    node
    for node in NETWORK.nodes.values()
    if (seat := SECOND.seat_of(node.public)) is not None and (FIRST.seat_of(node.public) or (None,))[0] != seat[0]
)
SHARD = (SECOND.seat_of(NEWCOMER.public) or (0,))[0]
OWN, ORIGIN = Chain(2, SHARD), Chain(1, SHARD)


def restarted() -> Duties:
    """A newcomer, once the second epoch has begun, that had its shard's origin when it ended."""
    chronicle = Chronicle(NETWORK.genesis)
    chronicle.begin(FIRST)
    chronicle.restore(TO_SECOND)
    return Duties(NETWORK.genesis, NEWCOMER, "n", 0, chronicle, {ORIGIN, OWN})


def test_what_its_chain_opens_from_is_kept_until_it_is_open() -> None:
    """Else a power cut between two epochs costs all newcomers what they have fetched."""
    duties = restarted()
    begun = duties.tend()
    (wanted,) = [e.effect for e in begun if isinstance(e, In) and e.chain == OWN and isinstance(e.effect, Recover)]
    assert [origin.electorate.chain for origin in wanted.origins] == [ORIGIN]
    assert Abandon(ORIGIN) not in begun
    duties.on_answer(OWN, For(OWN, Recovered(State.genesis(wanted.rules), None, ())).event, at(0))
    assert duties.all[OWN].replica is not None
    assert Abandon(ORIGIN) in duties.tend()


def test_guests_of_a_chain_are_those_whose_shard_comes_from_it_and_no_others() -> None:
    """Each of them may ask for blocks and rows."""
    duties = restarted()
    duties.tend()
    for chain, duty in duties.all.items():
        if chain.epoch == 1:
            children = SECOND.children_of(chain.shard)
            assert duty._guests == {key for child in children for key in SECOND.electorates[child].keys}
    assert any(chain.epoch == 1 for chain in duties.all)
