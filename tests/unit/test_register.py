"""What the register writes down, and when its phases end: the tables of docs/epochs.md, section 2."""

from collections.abc import Callable

import pytest
from msgspec import structs

from node.ledger import register as register_module
from node.ledger.execution import InvalidBlock
from node.ledger.register import MAX_PROSPECTS, prospect, register_of, written
from node.ledger.rows import CHANGE_KEY
from node.protocol.assignment import next_document
from node.protocol.change import Register, RegisterPhase, Stage
from node.protocol.channel import CountRequest, Load, Settled
from node.protocol.crypto import KeyPair
from node.protocol.entries import Call, Disclosure, Enrolment, Entry, Farewell, Ready
from node.protocol.limits import MAX_BLOCK_ENTRIES
from node.protocol.puzzle import identity_prefix, is_solution
from tests.unit.changing import SIZE, TIMES, Changing, node, secret_of

REGISTRATION, REVEAL, HANDOFF, SETTLEMENT, CLOSED = RegisterPhase
PAUSE = TIMES["epoch_pause"]
STRANGER = KeyPair(b"\x07" * 32)


@pytest.fixture
def one() -> Changing:
    """One shard, of four nodes; a fifth may come."""
    return Changing(1, more=1)


@pytest.fixture
def two() -> Changing:
    return Changing(2)


def is_written(at: Changing, entry: Entry) -> bool:
    """Whether it may go into the next block. What may not makes a block invalid."""
    before = at.register
    found = written(before, entry, at.rules[0], at.change(0).attempt)
    if found is None:
        with pytest.raises(InvalidBlock, match="not admissible"):
            at.execute(0, entries=[entry])
        return False
    assert at.execute(0, entries=[entry]).overlay.change.register is not None
    return True


# -- nothing happens -------------------------------------------------------------------------------------------------


def test_as_long_as_nothing_happens_no_block_writes_a_row_of_the_change(two: Changing) -> None:
    two.now += PAUSE
    for shard in two.shards:
        block = two.execute(shard, two.pay(two.issuer("USD"), two.account(0), 1)) if shard == 0 else two.execute(shard)
        assert CHANGE_KEY not in block.overlay.records
    assert two.register == Register(REGISTRATION, two.genesis.time, two.genesis.time + PAUSE)


def test_an_epochs_first_attempt_is_reckoned_from_its_opening(one: Changing) -> None:
    later = type(one.rules[0])(one.genesis, one.rules[0].network, 0, one.table, one.document, opened=one.genesis.time + 77)
    assert register_of(one.change(0), later).not_before == one.genesis.time + 77 + PAUSE


def test_only_the_register_has_entries_and_a_block_not_too_many(two: Changing) -> None:
    with pytest.raises(InvalidBlock, match="not admissible"):
        two.execute(1, entries=[two.call()])
    disclosures = two.disclosures([node(0)]) * (MAX_BLOCK_ENTRIES + 1)
    with pytest.raises(InvalidBlock, match=f"{MAX_BLOCK_ENTRIES + 1} entries"):
        two.execute(0, entries=disclosures)


# -- entries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 2},
        {"epoch": 1},
        {"epoch": 3},
        {"network": b"another!"},
        {"addresses": ("/ip4/0.0.0.0/tcp/1",)},
        {"addresses": ("/ip4/192.0.2.1/tcp/1", "mallory")},
    ],
)
def test_an_enrolment_is_for_this_attempt_solved_over_this_epoch_and_can_be_dialed(
    one: Changing, changes: dict[str, object]
) -> None:
    assert is_written(one, Enrolment(one.registration(node(4))))
    assert not is_written(one, Enrolment(one.registration(node(4), **changes)))  # type: ignore[arg-type]


def test_an_enrolments_puzzle_is_solved_over_the_document_of_this_epoch(one: Changing) -> None:
    prefix = identity_prefix(one.genesis.network, 2, one.document.hash, node(4).public)
    for nonce in (number.to_bytes(8, "big") for number in range(16)):
        is_solved = is_solution(prefix, nonce, one.genesis.parameters.puzzle_difficulty_bits)
        assert is_written(one, Enrolment(one.registration(node(4), nonce=nonce))) == is_solved


def test_an_enrolment_is_signed_by_its_key(one: Changing) -> None:
    unsigned = structs.replace(one.registration(node(4)), name="another")
    assert not is_written(one, Enrolment(unsigned))


def test_of_a_key_one_enrolment_is_written_in_an_attempt_and_no_other_takes_its_place(one: Changing) -> None:
    """Else anybody could say an older one again, and the node had pledged another secret."""
    first, second = one.registration(node(4)), one.registration(node(4), name="again")
    one.write(Enrolment(first))
    assert not is_written(one, Enrolment(first))
    assert not is_written(one, Enrolment(second))
    one.call_off()
    assert is_written(one, Enrolment(one.registration(node(4), one.change(0).attempt)))


def test_others_register_as_long_as_there_are_places_beside_the_members_and_these_always(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Changing(1, more=3)
    monkeypatch.setattr(register_module, "MAX_REGISTRATIONS", 5)
    one.write(*one.enrolments([node(0), node(4)]))
    assert not is_written(one, one.enrolments([node(5)])[0])
    assert is_written(one, one.enrolments([node(1)])[0])
    one.write(one.farewell(node(4)), *one.enrolments([node(5)]))
    assert not is_written(one, one.farewell(node(5)))
    assert is_written(one, one.farewell(node(0)))


def test_registrations_are_in_the_order_of_their_keys_however_they_came(one: Changing) -> None:
    one.write(*one.enrolments(reversed(one.nodes)))
    keys = [registration.public_key for registration in one.register.registrations]
    assert keys == sorted(key.public for key in one.nodes)


def test_a_farewell_drops_the_registration_and_is_final_in_this_epoch() -> None:
    one = Changing(1, more=2)
    one.write(*one.enrolments([node(0), node(4)]))
    one.write(one.farewell(node(0)), one.farewell(node(4)))
    assert (one.register.registrations, set(one.register.farewells)) == ((), {node(0).public, node(4).public})
    for _ in range(2):
        assert not any(is_written(one, entry) for entry in one.enrolments([node(0), node(4)]))
        one.call_off()


def test_a_farewell_is_a_members_or_registered_nodes_said_once_and_signed(one: Changing) -> None:
    assert is_written(one, one.farewell(node(0)))
    assert not is_written(one, one.farewell(node(4)))
    assert not is_written(one, Farewell(one.genesis.network, 2, node(0).public).signed(node(0)))
    assert not is_written(one, Farewell(b"another!", 1, node(0).public).signed(node(0)))
    assert not is_written(one, structs.replace(one.farewell(node(1)), public_key=node(0).public))
    one.write(one.farewell(node(0)))
    assert not is_written(one, one.farewell(node(0)))


def test_a_farewell_after_registration_leaves_the_roll_as_it_is(one: Changing) -> None:
    one.enter(HANDOFF)
    before, document = one.register.registrations, one.prospect
    one.write(one.farewell(node(0)))
    assert (one.register.registrations, one.prospect) == (before, document)


def test_a_disclosure_is_of_this_attempt_what_was_committed_to_and_the_first(one: Changing) -> None:
    one.write(*one.enrolments(one.nodes[:4]), one.call())
    assert not is_written(one, one.disclosures()[0]), "the list is still open"
    one.now += PAUSE
    one.write()
    assert one.register.phase is REVEAL
    key = node(0)
    assert is_written(one, Disclosure(1, key.public, secret_of(key)))
    assert not is_written(one, Disclosure(2, key.public, secret_of(key)))
    assert not is_written(one, Disclosure(1, key.public, bytes(32)))
    assert not is_written(one, Disclosure(1, node(4).public, secret_of(node(4))))
    one.write(*one.disclosures([key]))
    assert not is_written(one, Disclosure(1, key.public, secret_of(key)))


def test_ready_is_a_member_of_the_next_document_once(one: Changing) -> None:
    one.enter(HANDOFF)
    ready, document = one.readiness()[0], one.prospect.hash
    assert isinstance(ready, Ready)
    assert is_written(one, ready)
    stands_by = next(key for key in one.nodes if one.prospect.seat_of(key.public) is None)
    assert not is_written(one, Ready(document, stands_by.public).signed(stands_by))
    assert not is_written(one, Ready(document, STRANGER.public).signed(STRANGER))
    assert not is_written(one, structs.replace(ready, document=bytes(32)))
    assert not is_written(one, structs.replace(ready, signature=bytes(64)))
    one.write(ready)
    assert not is_written(one, ready)


def test_a_call_is_the_coordinators_for_this_attempt_once(one: Changing) -> None:
    assert is_written(one, one.call())
    assert not is_written(one, Call(one.genesis.network, 1, 1).signed(STRANGER))
    assert not is_written(one, structs.replace(one.call(), attempt=2))
    assert not is_written(one, structs.replace(one.call(), epoch=2))
    one.write(one.call())
    assert not is_written(one, one.call())


def test_each_kind_of_entry_has_its_phase(one: Changing) -> None:
    made: list[Callable[[], Entry]] = [
        lambda: Enrolment(one.registration(node(4))),
        one.call,
        lambda: one.disclosures([node(2)])[0],
        lambda: one.farewell(node(3)),
    ]
    found = {}
    for phase in (REGISTRATION, REVEAL, HANDOFF, SETTLEMENT, CLOSED):
        if phase is REVEAL:
            one.write(*one.enrolments(), one.call())
            one.now += PAUSE
            one.write()
        elif phase is not REGISTRATION:
            one.enter(phase)
        assert one.register.phase is phase
        register, attempt = one.register, one.change(0).attempt
        found[phase] = [written(register, make(), one.rules[0], attempt) is not None for make in made]
        ready = phase in (HANDOFF, SETTLEMENT) and written(register, one.readiness()[-1], one.rules[0], attempt) is not None
        found[phase].append(ready)
    assert found == {
        REGISTRATION: [True, True, False, True, False],
        REVEAL: [False, False, True, True, False],
        HANDOFF: [False, False, False, True, True],
        SETTLEMENT: [False, False, False, True, False],
        CLOSED: [False, False, False, False, False],
    }


# -- phases ----------------------------------------------------------------------------------------------------------


def test_registration_ends_when_called_after_the_pause_with_enough_nodes(one: Changing) -> None:
    one.write(*one.enrolments(one.nodes[:3]), one.call())
    one.now += PAUSE - 1
    one.write(*one.enrolments(one.nodes[3:4]))
    assert one.register.phase is REGISTRATION, "it is too early"
    one.now += 1
    one.write()
    assert (one.register.phase, one.register.since) == (REVEAL, one.now)


def test_registration_ends_without_a_call_when_the_epoch_is_old(one: Changing) -> None:
    one.write(*one.enrolments())
    one.now = one.genesis.time + TIMES["epoch_time"] - 1
    one.write()
    assert one.register.phase is REGISTRATION
    one.now += 1
    one.write()
    assert one.register.phase is REVEAL


def test_registration_waits_for_a_quorum_of_each_committee_to_be_heard_of(two: Changing) -> None:
    seats = {key: two.document.seat_of(key.public) for key in two.nodes}
    there, silent = ([key for key, seat in seats.items() if seat is not None and seat[0] == shard] for shard in two.shards)
    two.write(two.call(), *two.enrolments([*there, *silent[:2]]))
    two.now += PAUSE
    two.write()
    assert two.register.phase is REGISTRATION, "but two of one committee"
    two.write(two.farewell(silent[3]))
    assert two.register.phase is REVEAL


def test_registration_waits_until_the_registered_fill_a_committee(one: Changing) -> None:
    one.write(one.call(), one.farewell(node(3)), *one.enrolments(one.nodes[:3]))
    one.now += PAUSE
    one.write()
    assert one.register.phase is REGISTRATION, "three registered"
    one.write(*one.enrolments([node(4)]))
    assert one.register.phase is REVEAL


def test_reveal_ends_when_all_have_told_and_all_shards_their_load(two: Changing) -> None:
    two.enter(REVEAL)
    two.write(*two.disclosures())
    two.until(lambda: bool(two.register.loads))
    loads = two.register.loads
    two.until(lambda: two.register.phase is HANDOFF)
    assert two.now < two.register.since + TIMES["reveal_time"]
    assert [shard for shard, _ in loads] in ([0], [0, 1])
    assert [shard for shard, _ in two.register.loads] == [0, 1]


def test_reveal_ends_in_time_without_those_that_keep_silent(two: Changing) -> None:
    two.enter(REVEAL)
    since, told = two.register.since, two.nodes[:7]
    two.write(*two.disclosures(told))
    two.now = since + TIMES["reveal_time"] - 1
    two.write()
    assert two.register.phase is REVEAL
    two.now += 1
    two.write()
    assert (two.register.phase, two.register.since) == (HANDOFF, two.now)
    assert [registration.public_key for registration in two.prospect.silent] == [two.nodes[7].public]
    assert two.register.loads == ((0, 0),), "it took no bundle"


def test_an_attempt_without_a_document_is_called_off_and_the_next_waits_longer(one: Changing) -> None:
    for failures in range(1, 9):
        one.enter(REVEAL)
        one.now += TIMES["reveal_time"] * min(2 ** (failures - 1), 8) - 1
        one.write(*one.disclosures(one.nodes[:3]))
        assert one.register.phase is REVEAL, "secrets have longer to come after each failure"
        one.now += 1
        one.write()
        pause = PAUSE * min(2**failures, 64)
        assert one.register == Register(REGISTRATION, one.now, one.now + pause, called=True, failures=failures)
        assert (one.change(0).attempt, one.change(0).stage) == (failures + 1, Stage.MINING)


def test_farewells_outlive_a_failure(one: Changing) -> None:
    one.enter(HANDOFF)
    one.write(one.farewell(node(0)), one.farewell(node(4)))
    one.now += TIMES["handoff_time"]
    one.write()
    assert (one.register.phase, one.register.farewells) == (REGISTRATION, tuple(sorted((node(0).public, node(4).public))))


def test_handoff_ends_with_a_quorum_of_each_committee_or_in_vain(two: Changing) -> None:
    two.enter(HANDOFF)
    since, ready = two.register.since, two.readiness()
    two.now = since + TIMES["handoff_time"] - 1
    two.write(*ready[:SIZE], *ready[SIZE : SIZE + 2])
    assert two.register.phase is HANDOFF, "two of the second committee"
    parent = two.execute(0, entries=ready[SIZE + 2 : SIZE + 3])
    assert register_of(parent.overlay.change, two.rules[0]).phase is SETTLEMENT
    two.now += 1
    two.write()
    assert (two.register.phase, two.register.failures) == (REGISTRATION, 1)


def test_committees_have_longer_to_get_ready_after_each_failure_and_shards_as_long_to_settle(two: Changing) -> None:
    for failures in range(5):
        two.enter(HANDOFF)
        two.now += TIMES["handoff_time"] * min(2**failures, 8) - 1
        two.write()
        assert two.register.phase is HANDOFF
        two.now += 1
        two.write()
        assert (two.register.phase, two.register.failures) == (REGISTRATION, failures + 1)
    two.enter(SETTLEMENT)
    two.now = two.register.since + TIMES["settle_time"]
    two.write()
    assert two.register.phase is REGISTRATION


def test_the_next_document_is_what_everybody_computes_from_the_closing_register(two: Changing) -> None:
    two.enter(HANDOFF)
    two.write(two.farewell(node(0)))
    document = two.prospect
    two.enter(CLOSED)
    assert next_document(two.document, two.register, 1, two.genesis.parameters) == document
    assert {two.change(shard).document for shard in two.shards} == {document.hash}


def test_the_next_document_is_computed_once_however_often_it_is_asked_for(one: Changing, monkeypatch: pytest.MonkeyPatch) -> None:
    one.enter(HANDOFF)
    before = one.prospect
    monkeypatch.delattr(register_module, "next_document")
    one.write(*one.readiness()[:1], one.farewell(node(0)))
    assert one.prospect is before
    monkeypatch.undo()
    for _ in range(2 * MAX_PROSPECTS):
        other = structs.replace(one.register, loads=(*one.register.loads,))
        assert prospect(structs.replace(other, secrets=(*other.secrets,)), one.rules[0], 1) == before
    assert len(register_module._PROSPECTS) <= MAX_PROSPECTS


# -- what shards tell ------------------------------------------------------------------------------------------------


def test_a_load_is_of_this_attempt_in_time_and_the_first(two: Changing) -> None:
    assert two.told(1, 0, Load(1, 5)) == two.change(0), "nobody asked"
    two.enter(REVEAL)
    assert two.sent(0, 1)[-1:] == [CountRequest(1)]
    register = two.told(1, 0, Load(2, 7), Load(1, 5), Load(1, 6)).register
    assert register is not None
    assert register.loads == ((1, 5),)
    two.enter(HANDOFF)
    assert two.told(1, 0, Load(1, 5)) == two.change(0)


def test_settled_counts_once_for_each_shard_and_only_in_settlement(two: Changing) -> None:
    for phase in (REGISTRATION, REVEAL, HANDOFF):
        two.enter(phase)
        assert two.told(1, 0, Settled(1)) == two.change(0)
    two.enter(SETTLEMENT)
    register = two.told(1, 0, Settled(2), Settled(1), Settled(1)).register
    assert register is not None
    assert register.settled == (1,)
