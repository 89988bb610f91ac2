"""The coordinator after the first epoch has begun: it follows, calls for a change when there is a reason, and forgets nothing."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from node.protocol.bulletins import GetChange, GetSuccession, decode_ask
from node.protocol.change import Bulletin, Change, RegisterPhase
from node.protocol.codec import encode
from node.protocol.entries import Call, decode_entry
from node.protocol.epoch import Announcement, EpochDocument, InvalidDocument, PhaseNotice, Want, Wish
from node.protocol.genesis import Phase
from node.protocol.topics import asks_topic, bulletins_topic, entries_topic
from signaling.epochs import CALL_INTERVAL, CALLS_PER_HOUR, PATIENCE, PersistSuccession, Publish
from signaling.phases import Announce, Coordinator, Effect, PersistPhase, Saved
from signaling.storage import Storage, StorageError
from tests.chains import TIME, Network
from tests.successions import bulletin, register, succession, told_of

NETWORK = Network(standby=4)
GENESIS, FIRST = NETWORK.genesis, NETWORK.document
NODES = list(NETWORK.nodes.values())
TO_SECOND = succession(NETWORK, FIRST, NODES)
SECOND = TO_SECOND.next_document(FIRST, GENESIS.parameters)
SEATED = [node for node in NODES if FIRST.seat_of(node.public) is not None]
WAITING = [node for node in NODES if FIRST.seat_of(node.public) is None]
MINING = Saved(1, Phase.MINING, TIME, NETWORK.registrations, NETWORK.opening)


def coordinator(saved: Saved = MINING) -> Coordinator:
    return Coordinator(GENESIS, NETWORK.coordinator, 60_000, 30_000, saved)


def written(
    phase: RegisterPhase = RegisterPhase.REGISTRATION,
    height: int = 1,
    attempt: int = 1,
    current: EpochDocument = FIRST,
    nodes: Sequence[Any] = NODES,
    **fields: Any,
) -> bytes:
    """A bulletin of the register."""
    noted = register(NETWORK, current, phase, nodes, attempt, **fields)
    return encode(bulletin(NETWORK, current, current.register, Change(attempt=attempt, register=noted), height))


def wish(c: Coordinator, nodes: Iterable[Any], want: Want, epoch: int = 1) -> None:
    for node in nodes:
        c.connect(node.public, 0)
        assert c.receive(node.public, encode(Wish(epoch, want)), 0) == []


def calls(effects: Iterable[Effect]) -> list[Call]:
    topic = entries_topic(GENESIS.network)
    entries = [decode_entry(effect.body) for effect in effects if isinstance(effect, Publish) and effect.topic == topic]
    assert all(isinstance(entry, Call) and entry.is_signed(GENESIS.coordinator_key) for entry in entries)
    return [entry for entry in entries if isinstance(entry, Call)]


def called(c: Coordinator, now: int) -> list[Call]:
    """When what stands at ``now`` has stood long enough."""
    assert calls(c.tick(now)) == []
    return calls(c.tick(now + PATIENCE))


def stands(c: Coordinator) -> tuple[int, int, Phase, int]:
    notice = c.announcement.notice
    return notice.epoch, notice.attempt, notice.phase, notice.registered


def test_it_says_where_things_stand_as_the_register_does_with_the_first_opening() -> None:
    c = coordinator()
    assert stands(c) == (1, 1, Phase.MINING, 12)
    told = c.hear(written())
    assert (told, stands(c)) == ([], (1, 1, Phase.MINING, 12)), "names put down for when a change comes are none"
    for height, (phase, said) in enumerate(
        [
            (RegisterPhase.REVEAL, Phase.REVEAL),
            (RegisterPhase.HANDOFF, Phase.HANDOFF),
            (RegisterPhase.SETTLEMENT, Phase.SETTLEMENT),
        ],
        start=2,
    ):
        announced = [effect for effect in c.hear(written(phase, height)) if isinstance(effect, Announce)]
        assert announced == [Announce(c.announcement)]
        assert stands(c) == (2, 1, said, 12)
        assert c.announcement.content == NETWORK.opening
        c.announcement.check(GENESIS)
    c.hear(written(height=7, attempt=2, nodes=NODES[:5]))
    assert stands(c) == (2, 2, Phase.REGISTRATION, 5), "called off: another attempt"
    c.hear(told_of(TO_SECOND))
    assert stands(c) == (2, 1, Phase.MINING, 12)
    assert c.announcement.notice.since == TIME + 9
    assert c.doing == "epoch 2 is mining"
    c.announcement.check(GENESIS)


def test_a_later_epoch_is_announced_with_the_first_opening_or_not_at_all() -> None:
    notice = PhaseNotice(GENESIS.network, 2, 7, Phase.SETTLEMENT, 1, 8).signed(NETWORK.coordinator)
    Announcement(notice, NETWORK.opening).check(GENESIS)
    for content in (None, NETWORK.signed, NETWORK.sign_roll(NETWORK.roll)):
        with pytest.raises(InvalidDocument):
            Announcement(notice, content).check(GENESIS)


def test_it_calls_when_as_many_wait_as_fill_a_committee_and_again_until_that_is_noted() -> None:
    c = coordinator()
    wish(c, WAITING, Want.JOIN)
    assert called(c, 0) == [], "nothing is known of the register yet"
    c.hear(written())
    assert called(c, 10_000) == [Call(GENESIS.network, 1, 1).signed(NETWORK.coordinator)]
    again = 10_000 + PATIENCE + CALL_INTERVAL
    assert calls(c.tick(again - 1)) == []
    assert len(calls(c.tick(again))) == 1
    c.hear(written(height=2, called=True))
    assert stands(c)[2] is Phase.REGISTRATION
    assert calls(c.tick(again + CALL_INTERVAL)) == []
    c.hear(written(height=3, attempt=2, called=False))
    assert called(c, 30_000) == [Call(GENESIS.network, 1, 2).signed(NETWORK.coordinator)]
    c.hear(written(RegisterPhase.REVEAL, 4, attempt=2))
    assert called(c, 40_000) == []


def test_a_reason_that_passes_is_none_and_who_comes_a_moment_later_is_waited_for() -> None:
    c = coordinator()
    c.hear(written())
    wish(c, WAITING, Want.JOIN)
    assert calls(c.tick(0)) == []
    c.disconnect(WAITING[0].public, 0)
    assert calls(c.tick(1_000)) == []
    c.connect(WAITING[0].public, 1)
    wish(c, WAITING[:1], Want.JOIN)
    assert calls(c.tick(PATIENCE)) == []
    assert len(calls(c.tick(2 * PATIENCE))) == 1


def test_it_does_not_call_for_fewer_nor_for_who_is_gone_or_has_not_registered() -> None:
    for there, nodes in ((WAITING[:3], NODES), (WAITING, SEATED), ([], NODES)):
        c = coordinator()
        c.hear(written(nodes=nodes))
        wish(c, there, Want.JOIN)
        assert called(c, 0) == []


@pytest.mark.parametrize("want", [Want.LEAVE, Want.SIT_OUT])
def test_it_calls_when_one_member_leaves_or_may_not_vote(want: Want) -> None:
    c = coordinator()
    c.hear(written())
    wish(c, SEATED[:1], want)
    assert len(called(c, 0)) == 1


def test_it_calls_for_a_farewell_that_is_noted_of_a_member_and_of_nobody_else() -> None:
    for node, expected in ((SEATED[0], 1), (WAITING[0], 0)):
        c = coordinator()
        c.hear(written(farewells=(node.public,)))
        assert len(called(c, 0)) == expected


def test_a_wish_that_does_not_go_with_the_seat_or_the_epoch_counts_for_nothing() -> None:
    c = coordinator()
    c.hear(written())
    wish(c, SEATED, Want.JOIN)
    wish(c, WAITING, Want.LEAVE)
    wish(c, WAITING, Want.SIT_OUT)
    wish(c, SEATED, Want.SIT_OUT, epoch=2)
    wish(c, WAITING, Want.JOIN, epoch=3)
    assert called(c, 0) == []


def test_with_the_epoch_its_wishes_are_over() -> None:
    c = coordinator()
    wish(c, SEATED[:1], Want.SIT_OUT)
    c.hear(told_of(TO_SECOND))
    c.hear(written(current=SECOND))
    assert called(c, 0) == []
    wish(c, [node for node in NODES if SECOND.seat_of(node.public)][:1], Want.SIT_OUT, epoch=2)
    assert called(c, 10_000) == [Call(GENESIS.network, 2, 1).signed(NETWORK.coordinator)]


def test_members_that_say_they_leave_and_stay_do_not_have_one_change_follow_another() -> None:
    document, c, heeded = FIRST, coordinator(), 0
    for number in range(1, CALLS_PER_HOUR + 3):
        c.hear(written(current=document))
        wish(c, SEATED[:1], Want.SIT_OUT, epoch=number)
        heeded += len(called(c, 5_000 * number))
        step = succession(NETWORK, document, SEATED)
        document = step.next_document(document, GENESIS.parameters)
        c.hear(told_of(step))
    assert heeded <= CALLS_PER_HOUR + 1
    c.hear(written(current=document))
    wish(c, SEATED[:1], Want.SIT_OUT, epoch=document.number)
    assert len(called(c, 3_600_000)) == 1


def test_what_nobody_certified_changes_nothing_and_is_not_passed_on() -> None:
    c = coordinator()
    before = stands(c)
    noted = register(NETWORK, FIRST, RegisterPhase.HANDOFF, NODES)
    honest = bulletin(NETWORK, FIRST, 0, Change(register=noted))
    lies: list[bytes] = [b"", b"\xc1", encode(Wish(1, Want.LEAVE)), encode(replace(honest, change=Change(attempt=3)))]
    lies += [encode(bulletin(NETWORK, SECOND, 0, Change(register=noted)))]
    for lie in lies:
        assert c.hear(lie) == []
    assert stands(c) == before
    assert c.asked(encode(GetChange(1, 0)), 0) == []
    assert c.asked(b"\xc1", 0) == []
    assert coordinator(Saved()).hear(told_of(TO_SECOND)) == [], "nothing is known before there is a first document"


def test_it_asks_for_what_is_missing_and_answers_what_it_knows() -> None:
    c = coordinator()
    topic = asks_topic(GENESIS.network)
    asked = [effect.body for effect in c.tick(0) if isinstance(effect, Publish) and effect.topic == topic]
    assert [decode_ask(body) for body in asked] == [GetSuccession(2), GetChange(1, 0)]
    assert c.asked(encode(GetSuccession(2)), 0) == []
    c.hear(told_of(TO_SECOND))
    assert c.asked(encode(GetSuccession(2)), 0) == [Publish(bulletins_topic(GENESIS.network), told_of(TO_SECOND))]


def test_a_restart_knows_all_epochs_and_a_damaged_one_is_not_believed() -> None:
    storage = Storage(Path(":memory:"), GENESIS.hash)
    storage.load(0)
    storage.write([PersistPhase(1, 1, Phase.MINING, TIME, NETWORK.opening)])
    c = coordinator(storage.load(0))
    (persisted, *_) = effects = c.hear(told_of(TO_SECOND))
    assert isinstance(persisted, PersistSuccession)
    assert any(isinstance(effect, Announce) for effect in effects[1:]), "stored before anybody hears of it"
    storage.write([persisted])
    back = coordinator(storage.load(0))
    assert stands(back) == stands(c)
    assert back.knows(SECOND.committees[0].members[0].public_key)
    assert back.asked(encode(GetSuccession(2)), 0) == c.asked(encode(GetSuccession(2)), 0)
    with pytest.raises(InvalidDocument):
        coordinator(replace(MINING, successions=(succession(NETWORK, SECOND, NODES),)))
    storage._database.execute("UPDATE successions SET body = x'00'")
    with pytest.raises(StorageError):
        storage.load(0)
    storage.close()


def test_bulletins_of_the_closing_blocks_are_enough() -> None:
    c = coordinator()
    closings: tuple[Bulletin, ...] = TO_SECOND.closings
    told = [effect for closing in closings for effect in c.hear(encode(closing))]
    assert [effect for effect in told if isinstance(effect, PersistSuccession)] == [PersistSuccession(TO_SECOND)]
