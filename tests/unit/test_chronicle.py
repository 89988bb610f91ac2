"""The chronicle: what is proven leads from epoch to epoch, whoever carries it; what is not changes nothing."""

import pytest
from msgspec.structs import replace

from node import chronicle as chronicle_module
from node.chronicle import ANSWER_INTERVAL, ASK_INTERVAL, MAX_ASKS, QUIET, Chronicle, NewBulletin, NewDocument, News, Refused
from node.protocol import certificate as certificate_module
from node.protocol.assignment import next_document
from node.protocol.bulletins import GetChange, GetSuccession, Successions, decode_ask
from node.protocol.change import Bulletin, Change, RegisterPhase
from node.protocol.codec import encode
from node.protocol.epoch import EpochDocument, InvalidDocument
from node.protocol.succession import Succession
from tests.chains import Network
from tests.successions import bulletin, register, succession, told_of

NETWORK = Network(standby=4)
NODES = list(NETWORK.nodes.values())
FIRST = NETWORK.document
TO_SECOND = succession(NETWORK, FIRST, NODES)
SECOND = TO_SECOND.next_document(FIRST, NETWORK.genesis.parameters)
TO_THIRD = succession(NETWORK, SECOND, NODES[:8])
OWN, OTHER = TO_SECOND.closings


def begun() -> Chronicle:
    chronicle = Chronicle(NETWORK.genesis)
    chronicle.begin(FIRST)
    return chronicle


def tell(chronicle: Chronicle, *messages: Bulletin | Succession) -> list[News]:
    bodies = [told_of(message) if isinstance(message, Succession) else encode(message) for message in messages]
    return [news for body in bodies for news in chronicle.hear(body)]


def asks(chronicle: Chronicle, now: int) -> list[GetChange | GetSuccession]:
    return [decode_ask(ask) for ask in chronicle.asks(now)]


def of_register(phase: RegisterPhase, height: int, attempt: int = 1, current: EpochDocument = FIRST) -> Bulletin:
    nodes = NODES if phase > RegisterPhase.REGISTRATION else []
    written = register(NETWORK, current, phase, nodes, attempt)
    return bulletin(NETWORK, current, current.register, Change(attempt=attempt, register=written), height)


def test_the_closings_of_all_shards_begin_the_next_epoch_in_any_order_and_not_before() -> None:
    for closings in (TO_SECOND.closings, TO_SECOND.closings[::-1]):
        chronicle = begun()
        *others, last = closings
        assert tell(chronicle, *others) == [NewBulletin(one) for one in others]
        assert chronicle.documents == [FIRST]
        assert tell(chronicle, last) == [NewBulletin(last), NewDocument(SECOND, TO_SECOND)]
        assert (chronicle.documents, chronicle.successions) == ([FIRST, SECOND], [TO_SECOND])
        assert (chronicle.register, chronicle.closings, chronicle.prospect) == (None, {}, None)


def test_a_succession_begins_the_next_epoch_and_only_the_next() -> None:
    chronicle = begun()
    assert tell(chronicle, TO_THIRD) == []
    assert asks(chronicle, 0)[0] == GetSuccession(2)
    assert tell(chronicle, TO_SECOND) == [NewDocument(SECOND, TO_SECOND)]
    third = TO_THIRD.next_document(SECOND, NETWORK.genesis.parameters)
    assert tell(chronicle, TO_SECOND, TO_THIRD) == [NewDocument(third, TO_THIRD)]
    restored = begun()
    for one in (TO_SECOND, TO_THIRD):
        restored.restore(one)
    assert restored.documents == chronicle.documents


def test_several_successions_come_together_and_lead_on_from_wherever_one_is() -> None:
    third = TO_THIRD.next_document(SECOND, NETWORK.genesis.parameters)
    together = told_of(TO_SECOND, TO_THIRD)
    for known in (0, 1, 2):
        chronicle = begun()
        tell(chronicle, *[TO_SECOND, TO_THIRD][:known])
        news = chronicle.hear(together)
        assert news == [NewDocument(SECOND, TO_SECOND), NewDocument(third, TO_THIRD)][known:]
        assert chronicle.documents == [FIRST, SECOND, third]
    broken = begun()
    document, refused = broken.hear(encode(Successions(2, (encode(TO_SECOND), b"junk", encode(TO_THIRD)))))
    assert (document, type(refused)) == (NewDocument(SECOND, TO_SECOND), Refused)
    assert broken.documents == [FIRST, SECOND]


def test_who_was_told_of_an_epoch_asks_for_the_next_at_once() -> None:
    chronicle = begun()
    for now, (number, one) in enumerate([(2, TO_SECOND), (3, TO_THIRD)]):
        assert GetSuccession(number) in asks(chronicle, now)
        tell(chronicle, one)
    assert GetSuccession(4) in asks(chronicle, 2)


def test_a_newcomer_is_past_two_hundred_epochs_within_a_second_of_questions() -> None:
    ahead, newcomer, document, now, questions = begun(), begun(), FIRST, 0, 0
    for number in range(200):
        tell(ahead, step := succession(NETWORK, document, NODES if number % 2 else NODES[:8]))
        document = step.next_document(document, NETWORK.genesis.parameters)
    while newcomer.document != document:
        asked = newcomer.asks(now)
        for answer in filter(None, (ahead.answer(ask, now) for ask in asked)):
            newcomer.hear(answer)
        questions, now = questions + len(asked), now + (20 if asked else 500)
    assert now < 1_000
    assert questions < 10


def test_until_something_of_its_register_is_heard_an_epoch_may_not_be_the_last() -> None:
    """Whatever becomes of one question or answer: each second there is another."""
    chronicle = begun()
    for now in range(0, 10_000, ASK_INTERVAL):
        assert asks(chronicle, now)[0] == GetSuccession(2)
    tell(chronicle, of_register(RegisterPhase.REGISTRATION, 3))
    assert asks(chronicle, 10_000) == []


def test_what_was_verified_and_stored_here_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = list[bytes]()

    def note(public_key: bytes, *_: bytes) -> bool:
        checked.append(public_key)
        return True

    monkeypatch.setattr(certificate_module, "verify", note)
    chronicle = begun()
    chronicle.restore(TO_SECOND)
    assert (chronicle.document, checked) == (SECOND, [])
    tell(chronicle, TO_THIRD)
    assert checked


def test_what_is_restored_still_has_to_lead_there() -> None:
    twisted = replace(OWN, change=replace(OWN.change, attempt=2))
    for damaged in (Succession((twisted, OTHER)), Succession((OWN,)), TO_THIRD):
        with pytest.raises(InvalidDocument):
            begun().restore(damaged)


def test_what_is_not_proven_changes_nothing() -> None:
    chronicle = begun()
    forged = replace(OWN, change=replace(OWN.change, attempt=2))
    elsewhere = replace(OWN, epoch=1, header=replace(OWN.header, shard=1))
    unknown = replace(OWN, header=replace(OWN.header, shard=7))
    half = Succession(TO_SECOND.closings[:1])
    twisted = Succession((forged, OTHER))
    later = bulletin(NETWORK, FIRST, 1, OTHER.change, height=10)  # an empty block after the closing one
    for message in (forged, elsewhere, unknown, half, twisted):
        assert [type(news) for news in tell(chronicle, message)] == [Refused]
    assert isinstance(chronicle.hear(b"\xc1")[0], Refused)
    assert tell(chronicle, later) == []
    assert (chronicle.register, chronicle.closings, chronicle.documents) == (None, {}, [FIRST])
    assert Chronicle(NETWORK.genesis).hear(encode(OWN)) == []


def test_of_the_register_the_newest_is_kept_and_each_is_news_once() -> None:
    chronicle = begun()
    early, late = of_register(RegisterPhase.REGISTRATION, 3), of_register(RegisterPhase.REVEAL, 5)
    assert tell(chronicle, late, early, late) == [NewBulletin(late)]
    assert chronicle.register == late


def test_the_prospect_is_there_from_handoff_on_until_the_attempt_is_called_off() -> None:
    chronicle = begun()
    tell(chronicle, of_register(RegisterPhase.REVEAL, 3))
    assert chronicle.prospect is None
    handoff = of_register(RegisterPhase.HANDOFF, 4)
    tell(chronicle, handoff)
    assert handoff.change.register is not None
    first = next_document(FIRST, handoff.change.register, 1, NETWORK.genesis.parameters)
    assert chronicle.prospect == first
    tell(chronicle, of_register(RegisterPhase.REGISTRATION, 5, attempt=2))
    assert chronicle.prospect is None
    tell(chronicle, of_register(RegisterPhase.SETTLEMENT, 8, attempt=2))
    assert chronicle.prospect is not None
    assert chronicle.prospect.attempt == 2


def test_a_closing_of_another_attempt_is_not_counted_and_asked_for_again() -> None:
    chronicle = begun()
    other = bulletin(NETWORK, FIRST, 1, replace(OTHER.change, attempt=2), 9)
    assert NewDocument(SECOND, TO_SECOND) not in tell(chronicle, other, OWN)
    assert asks(chronicle, 0) == [GetChange(1, 1)]
    assert tell(chronicle, OTHER)[-1] == NewDocument(SECOND, TO_SECOND)


def test_it_asks_for_what_is_missing_each_thing_once_a_second() -> None:
    chronicle = begun()
    assert asks(chronicle, 0) == [GetSuccession(2), GetChange(1, 0)]
    assert asks(chronicle, QUIET - 1) == [GetSuccession(2)]
    assert asks(chronicle, QUIET) == [GetChange(1, 0)]
    tell(chronicle, of_register(RegisterPhase.REGISTRATION, 3))
    assert asks(chronicle, QUIET + 100) == []
    assert asks(chronicle, 2 * QUIET) == []
    assert asks(chronicle, 2 * QUIET + 100) == [GetChange(1, 0)]
    tell(chronicle, OTHER)
    at = 3 * QUIET
    assert asks(chronicle, at) == [GetChange(1, 0)]
    assert asks(chronicle, at + ASK_INTERVAL - 1) == []
    assert asks(chronicle, at + ASK_INTERVAL) == [GetChange(1, 0)]


def test_a_hint_of_a_later_epoch_is_one_question_a_second_however_often_it_comes() -> None:
    chronicle, hint = begun(), replace(OWN, epoch=9)
    tell(chronicle, of_register(RegisterPhase.REGISTRATION, 3))
    assert asks(chronicle, 0) == []
    for now in range(0, 2_000, 50):
        tell(chronicle, hint)
        assert chronicle.asks(now).count(encode(GetSuccession(2))) == (now % ASK_INTERVAL == 0)


def test_of_many_shards_a_few_are_asked_for_at_a_time() -> None:
    network = Network(committees=8, size=1)
    to_second = succession(network, network.document, network.nodes.values())
    chronicle = Chronicle(network.genesis)
    chronicle.begin(network.document)
    tell(chronicle, to_second.closings[0])
    assert [len(chronicle.asks(now)) for now in (0, 100, ASK_INTERVAL)] == [MAX_ASKS, 0, MAX_ASKS]


def test_it_answers_with_what_it_knows_each_question_twice_a_second() -> None:
    chronicle = begun()
    assert chronicle.answer(encode(GetChange(1, 1)), 0) is None
    tell(chronicle, OTHER)
    assert chronicle.answer(encode(GetChange(1, 1)), 0) == encode(OTHER)
    assert chronicle.answer(encode(GetChange(1, 1)), 499) is None
    assert chronicle.answer(encode(GetChange(1, 1)), 500) == encode(OTHER)
    tell(chronicle, OWN)
    assert chronicle.answer(encode(GetChange(1, 0)), 0) == encode(OWN)
    assert chronicle.answer(encode(GetSuccession(2)), 0) == told_of(TO_SECOND)
    tell(chronicle, newest := of_register(RegisterPhase.REGISTRATION, 2, current=SECOND))
    assert chronicle.answer(encode(GetChange(2, 0)), 0) == encode(newest)
    for nothing in (GetSuccession(3), GetChange(3, 0), GetChange(1, 9), GetChange(2, 1)):
        assert chronicle.answer(encode(nothing), 0) is None
    assert chronicle.answer(b"junk", 0) is None


def test_what_it_answers_is_bounded_in_bytes_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    chronicle = begun()
    tell(chronicle, OWN, OTHER)
    asked = [encode(one) for one in (GetChange(1, 0), GetChange(1, 1), GetSuccession(2))]
    monkeypatch.setattr(chronicle_module, "MAX_ANSWER_BYTES", len(encode(OWN)) + 1)
    assert [chronicle.answer(one, 0) is not None for one in asked] == [True, True, False], "one is begun before it is counted"
    assert [chronicle.answer(one, ANSWER_INTERVAL - 1) is not None for one in asked] == [False] * 3
    assert chronicle.answer(asked[2], ANSWER_INTERVAL) == told_of(TO_SECOND)


def test_an_answer_has_as_many_successions_as_fit_but_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    chronicle = begun()
    tell(chronicle, TO_SECOND, TO_THIRD)
    both = len(encode(TO_SECOND)) + len(encode(TO_THIRD))
    expected_of = {1: told_of(TO_SECOND), both - 1: told_of(TO_SECOND), both: told_of(TO_SECOND, TO_THIRD)}
    for now, (most, expected) in enumerate(expected_of.items()):
        monkeypatch.setattr(chronicle_module, "RUN_BYTES", most)
        assert chronicle.answer(encode(GetSuccession(2)), now * ANSWER_INTERVAL) == expected
    assert chronicle.answer(encode(GetSuccession(3)), 0) == told_of(TO_THIRD)
