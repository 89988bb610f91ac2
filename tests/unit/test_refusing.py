"""What a member says of transactions it does not admit: little, however many they are."""

from node.protocol.codec import encode
from node.protocol.codes import Code
from node.replica.refusing import INTERVAL, MAX_REFUSALS
from tests.chains import Network, key
from tests.unit.replicas import at, refusals, replica_of

NETWORK = Network(committees=1)


def unfunded(count: int, first: int = 0) -> list[bytes]:
    return [encode(NETWORK.pay(key("poor"), key("payee"), 1, salt=first + i)) for i in range(count)]


def test_refusals_are_gathered_and_what_is_beyond_the_rate_is_not_said() -> None:
    replica = replica_of(NETWORK, 0)
    replica.start(at(0))
    said = [refusals(replica, replica.on_transactions(unfunded(1), at(1)))]
    for burst in range(3):
        said.append(refusals(replica, replica.on_transactions(unfunded(MAX_REFUSALS, MAX_REFUSALS * burst), at(2 + burst))))
    assert replica.deadline == 1 + INTERVAL
    said += [refusals(replica, replica.on_tick(at(now))) for now in (INTERVAL, 1 + INTERVAL, 1 + 3 * INTERVAL)]
    assert [len(codes) for codes in said] == [1, 0, 0, 0, 0, MAX_REFUSALS, 0]
    assert {code for codes in said for code in codes} == {Code.INSUFFICIENT_FUNDS}
