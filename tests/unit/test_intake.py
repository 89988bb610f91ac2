"""The queue between shell and mind: bounded, and nobody waits for ever."""

from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.events import Asked, AskedAbout, Bulletined, ChainEvent, Entries, Event, For, SignaturesChecked, Tick, Transactions
from node.intake import MAX_FRAMES, MAX_NEWS, MAX_NEWS_BYTES, MAX_QUESTIONS, MAX_TRANSACTION_BYTES, Intake
from node.network.events import Message
from node.network.inbox import Inbox
from node.protocol.chain import Chain
from node.protocol.queries import GetStatus, Query

FRAME = Message(b"peer", b"frame")
CHAIN, OTHER = Chain(1, 0), Chain(2, 0)
ANSWER = For(CHAIN, SignaturesChecked(1, (True,)))
QUESTION = Query(bytes(16), "client", -1, GetStatus())


def kinds(intake: Intake) -> list[type[Event | ChainEvent]]:
    return [type(event.event if isinstance(event, For) else event) for event in intake.take()]


async def test_a_bounded_number_of_frames_is_taken_in_a_turn_and_the_rest_waits(autojump_clock: MockClock) -> None:
    peers = Inbox(lambda: None)
    intake = Intake(peers)
    for _ in range(MAX_FRAMES + 1):
        peers.put(FRAME)
    assert kinds(intake) == [Message] * MAX_FRAMES
    with trio.fail_after(1):
        await intake.wait(inf)
    assert kinds(intake) == [Message]
    assert kinds(intake) == [Tick]


async def test_frames_that_take_long_to_handle_are_not_taken_in_one_turn(mock_clock: MockClock) -> None:
    """Until it ends nothing is stored or sent: no vote."""
    peers = Inbox(lambda: None)
    intake = Intake(peers)
    for _ in range(20):
        peers.put(FRAME)
    turns = []
    while peers:
        handled = 0
        for _ in intake.take():
            handled += 1
            mock_clock.jump(0.006)
        turns.append(handled)
    assert turns == [4] * 5


async def test_answers_to_effects_come_before_frames() -> None:
    peers = Inbox(lambda: None)
    intake = Intake(peers)
    peers.put(FRAME)
    intake.put(ANSWER)
    assert kinds(intake) == [SignaturesChecked, Message]


async def test_questions_beyond_a_bound_are_dropped_while_earlier_ones_wait_or_are_read() -> None:
    intake = Intake(Inbox(lambda: None))
    for _ in range(MAX_QUESTIONS + 5):
        intake.offer_question(CHAIN, QUESTION)
    assert kinds(intake).count(Asked) == MAX_QUESTIONS
    for _ in range(MAX_QUESTIONS):
        intake.question_waits()
    intake.offer_question(CHAIN, QUESTION)
    assert kinds(intake) == [Tick]
    intake.question_answered()
    intake.offer_question(CHAIN, QUESTION)
    assert kinds(intake) == [Asked]


async def test_transactions_are_bounded_in_bytes_and_come_in_parts() -> None:
    intake = Intake(Inbox(lambda: None))
    numbered = [number.to_bytes(4096, "big") for number in range(MAX_TRANSACTION_BYTES // 4096)]
    assert all(intake.offer_transactions(CHAIN, numbered[first : first + 16]) for first in range(0, len(numbered), 16))
    assert not intake.offer_transactions(CHAIN, [b"x"])
    parts = []
    while isinstance(event := next(intake.take()), For) and isinstance(event.event, Transactions):
        parts.append(event.event.batch)
    assert [encoded for part in parts for encoded in part] == numbered
    assert max(sum(map(len, part)) for part in parts) < 256 << 10, "a turn of the loop is short"
    assert intake.offer_transactions(CHAIN, numbered), "and there is room again"


async def test_a_part_has_transactions_of_one_chain() -> None:
    intake = Intake(Inbox(lambda: None))
    for chain, encoded in ((CHAIN, b"a"), (CHAIN, b"b"), (OTHER, b"c"), (CHAIN, b"d")):
        intake.offer_transactions(chain, [encoded])
    taken = [event for _ in range(4) for event in intake.take()]
    assert taken == [
        For(CHAIN, Transactions((b"a", b"b"))),
        For(OTHER, Transactions((b"c",))),
        For(CHAIN, Transactions((b"d",))),
        Tick(),
    ]


@pytest.mark.parametrize("event", [Bulletined(b""), AskedAbout(b""), For(CHAIN, Entries((b"",)))])
async def test_what_comes_for_all_is_bounded_in_number_and_bytes(event: Bulletined | AskedAbout | For) -> None:
    intake = Intake(Inbox(lambda: None))
    for _ in range(MAX_NEWS + 5):
        intake.offer(event, 1)
    assert len(kinds(intake)) == MAX_NEWS
    intake.offer(event, MAX_NEWS_BYTES)
    intake.offer(event, 1)
    assert len(kinds(intake)) == 1
    intake.offer(event, 1)
    assert len(kinds(intake)) == 1


async def test_a_flood_of_one_kind_leaves_the_others_their_room() -> None:
    intake, entry = Intake(Inbox(lambda: None)), For(CHAIN, Entries((b"",)))
    for _ in range(MAX_NEWS):
        intake.offer(AskedAbout(b""), MAX_NEWS_BYTES // MAX_NEWS)
    intake.offer(Bulletined(b""), 1)
    intake.offer(entry, 1)
    assert kinds(intake)[MAX_NEWS:] == [Bulletined, Entries]


async def test_transactions_that_are_not_wanted_now_wait_and_wake_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    intake = Intake(Inbox(lambda: None))
    nursery.start_soon(intake.run)
    intake.offer_transactions(CHAIN, [b"x"])
    assert [type(event) for event in intake.take(transactions=False)] == [Tick]
    await intake.wait(inf, transactions=False)  # that they came
    began = trio.current_time()
    await intake.wait(began + 10, transactions=False)
    assert trio.current_time() == began + 10
    await intake.wait(inf)
    assert kinds(intake) == [Transactions]
    nursery.cancel_scope.cancel()


async def test_waiting_ends_at_the_time_it_was_last_given(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    intake = Intake(Inbox(lambda: None))
    nursery.start_soon(intake.run)
    began = trio.current_time()
    for seconds in (30, 10, 50):
        nursery.start_soon(intake.wait, began + seconds)
        await wait_all_tasks_blocked()
        intake.wake()
        await wait_all_tasks_blocked()
        assert trio.current_time() == began
    await intake.wait(began + 40)
    assert trio.current_time() == began + 40
    await intake.wait(began + 5)
    assert trio.current_time() == began + 40, "past already"
    nursery.cancel_scope.cancel()


async def test_who_has_taken_what_was_there_is_not_woken_for_it(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    peers = Inbox(lambda: None)
    intake = Intake(peers)
    nursery.start_soon(intake.run)
    peers.put(FRAME)
    await intake.wait(inf)
    assert kinds(intake) == [Message]
    intake.put(ANSWER)
    await intake.wait(inf)
    assert kinds(intake) == [SignaturesChecked]
    await intake.wait(trio.current_time() + 10)
    assert trio.current_time() >= 10
    nursery.cancel_scope.cancel()


async def test_an_answer_to_what_was_just_done_is_taken_before_others_have_a_turn(nursery: trio.Nursery) -> None:
    peers = Inbox(lambda: None)
    intake, others = Intake(peers), trio.Event()
    nursery.start_soon(_set, others)
    for _ in range(2):  # of those who have a turn, any may be the first
        intake.put(ANSWER)
        await intake.wait(inf)
        assert kinds(intake) == [SignaturesChecked]
    assert not others.is_set()
    peers.put(FRAME)
    for _ in range(2):
        await intake.wait(inf)
    assert others.is_set()


async def test_others_have_a_turn_before_an_answer_is_taken_while_transactions_wait(nursery: trio.Nursery) -> None:
    """Else a flood of those that are checked on the spot would hold up everybody."""
    intake, others = Intake(Inbox(lambda: None)), trio.Event()
    nursery.start_soon(_set, others)
    intake.offer_transactions(CHAIN, [b"x"])
    intake.put(ANSWER)
    for _ in range(2):
        await intake.wait(inf)
    assert others.is_set()


async def _set(event: trio.Event) -> None:
    event.set()


@pytest.mark.parametrize("is_frame", [False, True])
async def test_waiting_ends_with_the_first_event(autojump_clock: MockClock, is_frame: bool) -> None:
    peers = Inbox(lambda: None)
    intake = Intake(peers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.wait, inf)
        await wait_all_tasks_blocked()
        if is_frame:
            peers.put(FRAME)
        else:
            intake.offer_transactions(CHAIN, [b"x"])
    assert trio.current_time() < 1
