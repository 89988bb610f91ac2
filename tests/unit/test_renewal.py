"""What a node says to have a seat in the next epoch, when, and until it is written down."""

import pytest
from msgspec.structs import replace

from node.chronicle import Chronicle
from node.effects import Mine, Pledge, Publish
from node.protocol.change import Change, Register, RegisterPhase
from node.protocol.codec import encode
from node.protocol.entries import Disclosure, Enrolment, Entry, Farewell, Ready, decode_entry
from node.protocol.epoch import Want, Wish, commitment_to
from node.protocol.puzzle import search
from node.protocol.topics import entries_topic
from node.renewal import SAY_INTERVAL, Renewal
from tests.chains import Network
from tests.successions import bulletin, register, succession

NETWORK = Network(standby=4)
GENESIS, FIRST = NETWORK.genesis, NETWORK.document
ME = NETWORK.nodes[FIRST.electorates[1].keys[0]]
ADDRESSES = ("/ip4/192.0.2.1/tcp/8100",)
DOCUMENT = bytes(range(32))


class Setting:
    """A node, and what it knows of the epochs."""

    def __init__(self, pledge: Pledge | None = None) -> None:
        self.chronicle = Chronicle(GENESIS)
        self.chronicle.begin(FIRST)
        self.renewal = Renewal(GENESIS, ME, "me", ADDRESSES, bytes(32), pledge)
        self.height = 0
        self.now = 0
        self.pledges: list[Pledge] = []

    def write(self, written: Register | None, attempt: int = 1) -> None:
        document = self.chronicle.documents[-1]
        self.height += 1
        change = Change(attempt=attempt, register=written)
        self.chronicle.hear(encode(bulletin(NETWORK, document, document.register, change, self.height)))

    def says(self, ready_for: bytes = b"") -> list[Entry]:
        """What it says now; puzzles are solved as they come."""
        said: list[Entry] = []
        while effects := self.renewal.act(self.chronicle, ready_for, self.now):
            for effect in effects:
                match effect:
                    case Mine(epoch, prefix, bits):
                        nonce = search(prefix, bits, 0, 1 << 20)
                        assert nonce is not None
                        self.renewal.solved(epoch, nonce)
                    case Pledge():
                        self.pledges.append(effect)
                    case Publish(topic, body):
                        assert topic == entries_topic(GENESIS.network)
                        said.append(decode_entry(body))
        return said

    def enrolment(self) -> Enrolment:
        (entry,) = self.says()
        assert isinstance(entry, Enrolment)
        return entry


def written(phase: RegisterPhase, *enrolments: Enrolment, attempt: int = 1) -> Register:
    if phase > RegisterPhase.REVEAL:
        return register(NETWORK, FIRST, phase, list(NETWORK.nodes.values())[:8], attempt)
    by_key = sorted((enrolment.registration for enrolment in enrolments), key=lambda r: r.public_key)
    return replace(register(NETWORK, FIRST, phase, (), attempt), registrations=tuple(by_key))


def test_it_enrols_in_each_attempt_with_a_new_secret_that_it_pledged_first() -> None:
    node = Setting()
    assert node.says() == []  # nothing is known of the register
    commitments = set()
    for attempt in (1, 2):
        node.write(written(RegisterPhase.REGISTRATION), attempt)
        registration = node.enrolment().registration
        registration.check(GENESIS, 2, attempt, FIRST.hash)
        assert (registration.public_key, registration.name, registration.addresses) == (ME.public, "me", ADDRESSES)
        pledge = node.pledges[-1]
        assert (pledge.epoch, pledge.attempt, commitment_to(pledge.secret)) == (2, attempt, registration.commitment)
        commitments.add(registration.commitment)
    assert len(commitments) == len(node.pledges) == 2


def test_the_pledge_comes_before_the_enrolment() -> None:
    node = Setting()
    node.write(None)
    (mine,) = node.renewal.act(node.chronicle, b"", 0)
    assert isinstance(mine, Mine)
    assert node.renewal.act(node.chronicle, b"", 0) == []
    nonce = search(mine.prefix, mine.bits, 0, 1 << 20)
    assert nonce is not None
    node.renewal.solved(mine.token, nonce)
    assert [type(effect) for effect in node.renewal.act(node.chronicle, b"", 0)] == [Pledge, Publish]


def test_it_says_it_again_until_it_is_written_down() -> None:
    node = Setting()
    node.write(written(RegisterPhase.REGISTRATION))
    enrolment = node.enrolment()
    assert node.renewal.deadline == SAY_INTERVAL
    node.now = SAY_INTERVAL - 1
    assert node.says() == []
    node.now = SAY_INTERVAL
    assert node.enrolment() == enrolment
    node.write(written(RegisterPhase.REGISTRATION, enrolment))
    node.now = 10 * SAY_INTERVAL
    assert node.says() == []


def test_who_is_registered_from_a_disk_it_lost_waits_for_the_next_attempt() -> None:
    node = Setting()
    node.write(written(RegisterPhase.REGISTRATION))
    lost = replace(node.enrolment().registration, commitment=bytes(32))
    node.now = SAY_INTERVAL
    node.write(written(RegisterPhase.REGISTRATION, Enrolment(lost)))
    assert node.says() == []
    node.write(written(RegisterPhase.REGISTRATION, attempt=2), attempt=2)
    assert node.enrolment().registration.attempt == 2


def test_who_said_farewell_and_changed_its_mind_waits_for_the_next_epoch() -> None:
    node = Setting()
    node.write(replace(written(RegisterPhase.REGISTRATION), farewells=(ME.public,)))
    assert node.says() == []
    node.chronicle.restore(succession(NETWORK, FIRST, list(NETWORK.nodes.values())[:8]))
    node.write(None)
    assert node.enrolment().registration.epoch == 3


def test_it_tells_its_secret_only_once_the_list_is_closed_and_has_it_as_pledged() -> None:
    node = Setting()
    node.write(written(RegisterPhase.REGISTRATION))
    enrolment = node.enrolment()
    (pledge,) = node.pledges
    another = Enrolment(replace(enrolment.registration, commitment=bytes(32)))
    for absent in ((), (another,)):
        node.write(written(RegisterPhase.REVEAL, *absent))
        assert node.says() == []
    node.write(written(RegisterPhase.REVEAL, enrolment))
    assert node.says() == [Disclosure(1, ME.public, pledge.secret)]
    told = replace(written(RegisterPhase.REVEAL, enrolment), secrets=((ME.public, pledge.secret),))
    node.write(told)
    node.now = SAY_INTERVAL
    assert node.says() == []


def test_after_a_restart_it_tells_the_secret_that_is_on_the_disk_and_without_one_nothing() -> None:
    first = Setting()
    first.write(written(RegisterPhase.REGISTRATION))
    enrolment = first.enrolment()
    for pledge, count in ((first.pledges[0], 1), (None, 0), (replace(first.pledges[0], epoch=3), 0)):
        node = Setting(pledge)
        node.write(written(RegisterPhase.REVEAL, enrolment))
        assert len(node.says()) == count


def test_an_older_word_of_the_register_does_not_cost_the_newer_pledge() -> None:
    """After a restart any that is certified is news, and anybody may say it again."""
    first = Setting()
    first.write(written(RegisterPhase.REGISTRATION, attempt=2), attempt=2)
    enrolment = first.enrolment()
    node = Setting(first.pledges[0])
    node.write(written(RegisterPhase.REGISTRATION))
    assert node.says() == []
    assert node.pledges == []
    node.write(written(RegisterPhase.REVEAL, enrolment, attempt=2), attempt=2)
    assert node.says() == [Disclosure(2, ME.public, first.pledges[0].secret)]


def test_it_says_that_it_is_ready_in_the_handoff_once_it_is() -> None:
    node = Setting()
    node.write(written(RegisterPhase.HANDOFF))
    assert node.says() == []
    (entry,) = node.says(DOCUMENT)
    assert isinstance(entry, Ready)
    assert (entry.document, entry.public_key, entry.is_signed) == (DOCUMENT, ME.public, True)
    node.now = SAY_INTERVAL
    node.write(replace(written(RegisterPhase.HANDOFF), ready=(ME.public,)))
    assert node.says(DOCUMENT) == []


@pytest.mark.parametrize("phase", [p for p in RegisterPhase if p is not RegisterPhase.CLOSED])
def test_who_leaves_says_farewell_and_wants_no_seat(phase: RegisterPhase) -> None:
    node = Setting()
    node.renewal.leave()
    node.write(written(phase))
    assert node.says() == [Farewell(FIRST.network, 1, ME.public).signed(ME)]
    node.now = SAY_INTERVAL
    node.write(replace(written(phase), farewells=(ME.public,)))
    assert node.says() == []


def test_who_leaves_and_has_a_seat_already_begins_with_the_others() -> None:
    node = Setting()
    node.renewal.leave()
    node.write(written(RegisterPhase.HANDOFF))
    (entry,) = node.says(DOCUMENT)
    assert isinstance(entry, Ready)
    node.write(replace(written(RegisterPhase.HANDOFF), ready=(ME.public,)))
    assert node.says(DOCUMENT) == [Farewell(FIRST.network, 1, ME.public).signed(ME)]


def test_who_has_left_says_nothing_in_the_next_epoch_either() -> None:
    node = Setting()
    node.renewal.leave()
    others = [pair for pair in NETWORK.nodes.values() if pair is not ME][:8]
    node.chronicle.restore(succession(NETWORK, FIRST, others))
    node.write(None)
    assert node.says() == []


def test_each_epoch_has_a_puzzle_of_its_own() -> None:
    node = Setting()
    node.write(None)
    first = node.enrolment().registration
    node.chronicle.restore(succession(NETWORK, FIRST, list(NETWORK.nodes.values())[:8]))
    node.write(None)
    second = node.enrolment().registration
    second.check(GENESIS, 3, 1, node.chronicle.documents[-1].hash)
    assert second.commitment != first.commitment


def test_a_member_wishes_for_a_change_when_it_leaves_or_may_not_vote_and_who_has_no_seat_to_have_one() -> None:
    renewal = Setting().renewal
    without = replace(FIRST, committees=FIRST.committees[:1])
    assert renewal.wish(FIRST, may_vote=True) is None
    assert renewal.wish(FIRST, may_vote=False) == Wish(1, Want.SIT_OUT)
    assert renewal.wish(without, may_vote=False) == Wish(1, Want.JOIN)
    renewal.leave()
    assert renewal.wish(FIRST, may_vote=True) == Wish(1, Want.LEAVE)
    assert renewal.wish(without, may_vote=False) is None
