"""multistream-select: two sides agree, however their bytes are cut; who does not speak it is no peer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.multistream import MAX_MESSAGES, Negotiation, NoAgreement

GREETING, NAME = b"\x13/multistream/1.0.0\n", b"\x06/name\n"


def feed(negotiation: Negotiation, data: bytes, gulp: int) -> bytes:
    return b"".join(negotiation.receive(data[at : at + gulp]) for at in range(0, len(data), gulp))


@given(st.integers(1, 50), st.binary(max_size=20))
def test_two_sides_agree_and_what_follows_is_kept(gulp: int, more: bytes) -> None:
    dialer, listener = Negotiation(["/name"], True), Negotiation(["/name"], False)
    answer = feed(listener, dialer.hello, gulp)
    assert listener.is_done
    assert (dialer.hello, listener.hello, answer) == (GREETING + NAME, GREETING, NAME)
    assert feed(dialer, listener.hello + answer + more, gulp) == b""
    assert (dialer.is_done, dialer.rest, listener.rest) == (True, more, b"")


def test_who_asks_what_there_is_or_for_something_else_may_ask_again() -> None:
    listener = Negotiation(["/name"], False)
    assert listener.receive(GREETING + b"\x03ls\n\x07/other\n") == b"\x07/name\n\n" + b"\x03na\n"
    assert not listener.is_done
    assert listener.receive(NAME) == NAME
    assert listener.is_done


@pytest.mark.parametrize("said", [b"\x00", b"\x80\x01", b"\xff\xff\xff\x7f", b"\x02ab", b"\x05hello\n", NAME, b"\x03\xff\xfe\n"])
@pytest.mark.parametrize("dialed", [True, False])
def test_who_says_something_else_is_no_peer(said: bytes, dialed: bool) -> None:
    with pytest.raises(NoAgreement):
        Negotiation(["/name"], dialed).receive(said + GREETING)


def test_who_was_asked_and_does_not_speak_it_is_no_peer() -> None:
    for answer in (b"\x03na\n", b"\x07/other\n"):
        with pytest.raises(NoAgreement):
            Negotiation(["/name"], True).receive(GREETING + answer)


def test_who_proposes_for_ever_is_no_peer() -> None:
    listener = Negotiation(["/name"], False)
    assert listener.receive(GREETING + b"\x07/other\n" * (MAX_MESSAGES - 1)) == b"\x03na\n" * (MAX_MESSAGES - 1)
    with pytest.raises(NoAgreement):
        listener.receive(NAME)
