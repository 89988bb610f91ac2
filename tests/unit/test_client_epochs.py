"""What a client believes of the coordinator."""

from msgspec import structs

from node.chronicle import Refused
from node.client.epochs import Epochs, NewDocument, NewPhase
from node.protocol.codec import encode
from node.protocol.epoch import SignedDocument
from node.protocol.genesis import Phase
from tests.chains import TIME, Network, key

NETWORK = Network(standby=1)


def informed() -> Epochs:
    epochs = Epochs(NETWORK.genesis)
    document, phase = epochs.announce(encode(NETWORK.announcement(since=TIME + 5)))
    assert isinstance(document, NewDocument)
    assert document.document == NETWORK.document
    assert isinstance(phase, NewPhase)
    assert phase.notice.phase is Phase.MINING
    return epochs


def test_an_announcement_brings_the_committees_and_the_phase_once() -> None:
    waiting = Epochs(NETWORK.genesis)
    assert (waiting.current, waiting.seats) == ({}, {})
    registering = waiting.announce(encode(NETWORK.announcement(Phase.REGISTRATION)))
    assert [type(news) for news in registering] == [NewPhase]
    epochs = informed()
    assert epochs.current == NETWORK.document.electorates
    assert len(epochs.seats) == 8
    assert epochs.seats[NETWORK.document.committees[1].members[2].name] == (1, 2)
    older = NETWORK.announcement(Phase.REGISTRATION, since=TIME + 4)
    for repeated in (NETWORK.announcement(since=TIME + 5), older):
        assert epochs.announce(encode(repeated)) == []
        assert epochs.notice is not None
        assert epochs.notice.phase is Phase.MINING


def test_a_document_is_believed_once_its_committees_are_ready_not_before() -> None:
    """An attempt that is called off leaves nothing behind."""
    epochs = Epochs(NETWORK.genesis)
    for phase in (Phase.REVEAL, Phase.ASSIGNMENT, Phase.HANDOFF):
        assert [type(news) for news in epochs.announce(encode(NETWORK.announcement(phase)))] == [NewPhase]
    assert (epochs.document, epochs.seats) == (None, {})
    assert [type(news) for news in epochs.announce(encode(NETWORK.announcement()))] == [NewDocument, NewPhase]


def test_what_is_not_signed_or_against_the_rules_is_refused_whole() -> None:
    genuine, committees = NETWORK.announcement(), NETWORK.document.committees
    swapped = (structs.replace(committees[0], members=committees[1].members), *committees[1:])
    partial = NETWORK.open_document(structs.replace(NETWORK.document, committees=swapped))
    forged = structs.replace(NETWORK.opening, signed=SignedDocument(NETWORK.document, bytes(64)))
    hasty = structs.replace(NETWORK.opening, quorums=NETWORK.opening.quorums[::-1])
    changes: list[dict[str, object]] = [{"notice": genuine.notice.signed(key("somebody"))}, {"content": None}]
    changes += [{"content": content} for content in (forged, partial, hasty)]
    bodies = [b"", b"\xc1", encode([1, 2]), *(encode(structs.replace(genuine, **change)) for change in changes)]
    for body in bodies:
        epochs = Epochs(NETWORK.genesis)
        (news,) = epochs.announce(body)
        assert isinstance(news, Refused)
        assert (epochs.document, epochs.notice) == (None, None)


def test_a_second_document_for_the_epoch_is_refused_however_well_signed() -> None:
    other = Network()  # the same genesis, one node less registered
    assert other.genesis == NETWORK.genesis
    assert other.document != NETWORK.document
    epochs = informed()
    (news,) = epochs.announce(encode(other.announcement(since=TIME + 9)))
    assert news == Refused("another document for the same epoch")
    assert epochs.document == NETWORK.document
    assert epochs.notice is not None
    assert epochs.notice.since == TIME + 5


def test_a_stored_document_is_restored_and_checked() -> None:
    first = informed()
    restored = Epochs(NETWORK.genesis)
    assert [type(news) for news in restored.restore(encode(first.opening))] == [NewDocument]
    assert restored.electorates == first.electorates
    hasty = structs.replace(NETWORK.opening, quorums=NETWORK.opening.quorums[::-1])
    for damaged in (b"", encode(NETWORK.signed), encode(hasty)):
        (news,) = Epochs(NETWORK.genesis).restore(damaged)
        assert isinstance(news, Refused)
