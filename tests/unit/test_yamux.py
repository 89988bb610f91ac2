"""Yamux with one stream: whatever way the bytes are cut, flow control both ways, and what a peer may not do."""

from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.yamux import FIRST_WINDOW, HEADER_BYTES, MAX_ANSWERS, Yamux, YamuxBroken

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
UNREAD = 1 << 20


def frame(kind: int, flags: int = 0, stream: int = 1, length: int = 0, body: bytes = b"", version: int = 0) -> bytes:
    return pack(">BBHII", version, kind, flags, stream, length or len(body)) + body


def pair(unread: int = UNREAD) -> tuple[Yamux, Yamux]:
    """Who dialed, and who was dialed, with the stream between them."""
    dialer, listener = Yamux(True, unread), Yamux(False, unread)
    assert not listener.is_open
    assert listener.receive(dialer.send(b"")) == b""
    assert dialer.receive(listener.send(b"")) == b""
    assert dialer.is_open
    assert listener.is_open
    return dialer, listener


@given(st.lists(st.binary(max_size=3000), max_size=30), st.integers(1, 40) | st.integers(1, 5000))
def test_what_one_side_sends_the_other_receives_however_it_is_cut(payloads: list[bytes], gulp: int) -> None:
    for sender, receiver in (pair(), pair()[::-1]):
        written = b"".join(
            between + sender.send(payload) for payload in payloads for between in (frame(PING, SYN, 0, 7), frame(PING, ACK, 0, 7))
        )
        sent = b"".join(payload for payload in payloads for _ in range(2))
        got = b"".join(receiver.receive(written[at : at + gulp]) for at in range(0, len(written), gulp))
        assert got == sent
        assert receiver.send(b"") == frame(PING, ACK, 0, 7) * len(payloads)
        assert receiver.send(b"") == b""


def test_a_stream_that_is_opened_with_its_first_payload_or_with_more_window_is_understood() -> None:
    listener = Yamux(False, UNREAD)
    assert listener.receive(frame(DATA, SYN, 3, body=b"at once")) == b"at once"
    assert listener.send(b"answer") == frame(WINDOW_UPDATE, ACK, 3, UNREAD - FIRST_WINDOW) + frame(DATA, 0, 3, body=b"answer")
    listener = Yamux(False, UNREAD)
    assert listener.receive(frame(WINDOW_UPDATE, SYN, 1, 1000)) == b""
    assert listener.send_window == FIRST_WINDOW + 1000


def test_all_that_a_window_allows_may_be_sent_and_what_was_consumed_again() -> None:
    dialer, listener = pair()
    updates = 0
    for _ in range(10):
        assert dialer.send_window == UNREAD
        while dialer.send_window:
            assert len(listener.receive(dialer.send(bytes(min(65_000, dialer.send_window))))) > 0
            assert listener.send(b"") == b"", "nothing was consumed"
        for part in (UNREAD // 2 - 1, 1, UNREAD // 2):
            listener.consumed(part)
            update = listener.send(b"")
            updates += bool(update)
            dialer.receive(update)
    assert updates == 2 * 10, "an update for half a window, and not for less"


def test_a_byte_beyond_the_window_ends_the_connection_before_it_is_there() -> None:
    _, listener = pair()
    listener.receive(frame(DATA, body=bytes(UNREAD)))
    with pytest.raises(YamuxBroken, match="flow control"):
        listener.receive(frame(DATA, length=1))
    dialer = Yamux(True, UNREAD)  # which has told of a larger window, and was not heard: it is the peer's to use
    dialer.receive(frame(WINDOW_UPDATE, ACK))
    with pytest.raises(YamuxBroken, match="flow control"):
        dialer.receive(frame(DATA, length=UNREAD + 1))


def test_where_less_may_be_unread_than_the_first_window_it_ends_the_connection() -> None:
    _, listener = pair(unread=1000)
    for _ in range(1000):  # for much longer than the window is
        assert len(listener.receive(frame(DATA, body=bytes(1000)))) == 1000
        listener.consumed(1000)
        listener.send(b"")
    listener.receive(frame(DATA, body=bytes(1000)))
    with pytest.raises(YamuxBroken, match="flow control"):
        listener.receive(frame(DATA, length=1))


def test_further_streams_are_reset_and_what_comes_on_them_is_passed_over() -> None:
    dialer, listener = pair()
    second = frame(WINDOW_UPDATE, SYN, 3) + frame(DATA, 0, 3, body=b"for nobody") + frame(DATA, FIN, 3)
    assert listener.receive(second + frame(DATA, body=b"for us") + frame(WINDOW_UPDATE, 0, 3, 5)) == b"for us"
    assert listener.send(b"") == frame(WINDOW_UPDATE, RST, 3)
    assert dialer.receive(frame(DATA, SYN, 2, body=b"x") + frame(DATA, RST, 2)) == b""
    assert dialer.send(b"") == frame(WINDOW_UPDATE, RST, 2)
    assert not dialer.is_over | listener.is_over
    assert listener.send_window == UNREAD


@pytest.mark.parametrize(
    "hostile",
    [
        frame(DATA, version=1),
        frame(4),
        frame(DATA, SYN, 1),
        frame(WINDOW_UPDATE, SYN, 2),
        frame(WINDOW_UPDATE, SYN, 0),
        frame(WINDOW_UPDATE, RST, 1),
        frame(DATA, RST, 1),
    ],
    ids=["a version", "a type", "the stream again", "a stream of our numbers", "stream 0", "a reset", "a reset of data"],
)
def test_what_is_malformed_ends_the_connection(hostile: bytes) -> None:
    with pytest.raises(YamuxBroken):
        pair()[1].receive(hostile)


@pytest.mark.parametrize(
    "asks", [lambda n: frame(PING, SYN, 0, n + 1), lambda n: frame(DATA, SYN, 2 * n + 3)], ids=["pings", "streams"]
)
def test_who_asks_for_answers_and_does_not_take_them_is_no_peer(asks: Callable[[int], bytes]) -> None:
    _, listener = pair()
    few = MAX_ANSWERS // HEADER_BYTES
    listener.receive(frame(DATA, body=bytes(UNREAD)))
    for number in range(few):
        listener.receive(asks(number))
    listener.consumed(UNREAD)  # whose fault it is not
    with pytest.raises(YamuxBroken, match="answers"):
        listener.receive(asks(few))


@given(st.integers(1, 30))
def test_payload_up_to_the_end_of_the_stream_is_heard(gulp: int) -> None:
    for end in (frame(DATA, FIN, body=b"the last"), frame(DATA, body=b"the last") + frame(GO_AWAY, stream=0)):
        _, listener = pair()
        heard = b""
        for at in range(0, len(end), gulp):
            assert not listener.is_over
            heard += listener.receive(end[at : at + gulp])
        assert (heard, listener.is_over) == (b"the last", True)
