"""What a client believes of the coordinator."""

from msgspec import structs

from node.client.epochs import Epochs, NewDocument, NewPhase, Refused
from node.protocol.codec import encode
from node.protocol.epoch import SignedDocument
from node.protocol.genesis import Phase
from tests.chains import TIME, Network, key

NETWORK = Network(standby=1)


def test_an_announcement_brings_the_committees_and_the_phase_once() -> None:
    epochs = Epochs(NETWORK.genesis)
    assert epochs.electorates == {}
    registering = epochs.announce(encode(NETWORK.announcement(Phase.REGISTRATION, assigned=False)))
    assert [type(news) for news in registering] == [NewPhase]
    mining = encode(NETWORK.announcement(since=TIME + 5))
    document, phase = epochs.announce(mining)
    assert isinstance(document, NewDocument)
    assert document.document == NETWORK.document
    assert isinstance(phase, NewPhase)
    assert phase.notice.phase is Phase.MINING
    assert epochs.electorates == NETWORK.document.electorates
    assert epochs.announce(mining) == []


def test_a_repeated_older_notice_changes_nothing() -> None:
    epochs = Epochs(NETWORK.genesis)
    epochs.announce(encode(NETWORK.announcement(since=TIME + 5)))
    assert epochs.announce(encode(NETWORK.announcement(Phase.REGISTRATION, since=TIME + 4, assigned=False))) == []
    assert epochs.notice is not None
    assert epochs.notice.phase is Phase.MINING


def test_what_the_coordinator_did_not_sign_is_refused_whole() -> None:
    genuine = NETWORK.announcement()
    assert genuine.document is not None
    forged_notice = structs.replace(genuine, notice=genuine.notice.signed(key("somebody")))
    forged_document = structs.replace(
        genuine, document=SignedDocument(NETWORK.document, key("somebody").sign(NETWORK.document.hash))
    )
    for body in (b"", b"\xc1", encode([1, 2]), encode(forged_notice), encode(forged_document)):
        epochs = Epochs(NETWORK.genesis)
        (news,) = epochs.announce(body)
        assert isinstance(news, Refused)
        assert epochs.document is None
        assert epochs.notice is None


def test_an_assignment_against_the_rules_is_refused_though_signed() -> None:
    committees = NETWORK.document.committees
    swapped = (structs.replace(committees[0], members=committees[1].members), *committees[1:])
    partial = structs.replace(NETWORK.document, committees=swapped)
    announcement = structs.replace(NETWORK.announcement(), document=NETWORK.sign_document(partial))
    (news,) = Epochs(NETWORK.genesis).announce(encode(announcement))
    assert isinstance(news, Refused)


def test_a_second_document_for_the_epoch_is_refused_however_well_signed() -> None:
    other = Network()  # the same genesis, one node less registered
    assert other.genesis == NETWORK.genesis
    assert other.document != NETWORK.document
    epochs = Epochs(NETWORK.genesis)
    epochs.announce(encode(NETWORK.announcement()))
    (news,) = epochs.announce(encode(other.announcement(Phase.SETTLEMENT, since=TIME + 9)))
    assert news == Refused("another document for the same epoch")
    assert epochs.document == NETWORK.document
    assert epochs.notice is not None
    assert epochs.notice.phase is Phase.MINING


def test_a_stored_document_is_restored_and_checked() -> None:
    first = Epochs(NETWORK.genesis)
    first.announce(encode(NETWORK.announcement()))
    restored = Epochs(NETWORK.genesis)
    assert [type(news) for news in restored.restore(encode(first.signed))] == [NewDocument]
    assert restored.electorates == first.electorates
    for damaged in (b"", encode(SignedDocument(NETWORK.document, bytes(64)))):
        (news,) = Epochs(NETWORK.genesis).restore(damaged)
        assert isinstance(news, Refused)


def test_seats_name_every_member() -> None:
    epochs = Epochs(NETWORK.genesis)
    epochs.announce(encode(NETWORK.announcement()))
    assert len(epochs.seats) == 8
    shard, member = epochs.seats[NETWORK.document.committees[1].members[2].name]
    assert (shard, member) == (1, 2)
