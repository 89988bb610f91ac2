"""The handshake: two sides prove their keys and agree; who proves nothing, or another's key, gets nowhere."""

from hashlib import sha256

import pytest
from ecdsa import NIST256p, SigningKey
from hypothesis import given
from hypothesis import strategies as st

from node.network.noise import Handshake, Identity, NotProven
from node.protocol.crypto import KeyPair
from tests.chains import key

ANN, BEN = key("ann"), key("ben")


def shake(dialer: Identity, listener: Identity) -> tuple[Handshake, Handshake]:
    sides = Handshake(dialer, True), Handshake(listener, False)
    while not sides[0].is_done:
        writer, reader = sides if sides[0].writes_next else sides[::-1]
        assert writer.writes_next
        assert not reader.writes_next
        reader.read(writer.write())
    assert sides[1].is_done
    return sides


class Claiming(Identity):
    """Somebody who proves a key with what a test says."""

    def __init__(self, owner: KeyPair, proof: bytes) -> None:
        super().__init__(owner)
        self.proof = proof


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def test_each_side_learns_who_the_other_is_and_what_one_encrypts_the_other_can_read() -> None:
    dialer, listener = shake(Identity(ANN), Identity(BEN))
    assert (dialer.peer, listener.peer) == (BEN.public, ANN.public)
    assert dialer.keys == listener.keys[::-1]
    assert len({*dialer.keys, *shake(Identity(ANN), Identity(BEN))[0].keys}) == 4, "keys are of one connection"


def test_fields_that_others_add_are_passed_over() -> None:
    ann = Identity(ANN)
    more = b"\x18\x96\x01" + field(4, b"\x12\x03abc") + b"\x29" + bytes(8) + b"\x35" + bytes(4)
    ann.proof = more + ann.proof + more
    assert shake(ann, Identity(BEN))[1].peer == ANN.public


def claims() -> dict[str, bytes]:
    good, other = Identity(ANN).proof, SigningKey.generate(NIST256p).verifying_key
    known = b"\x08\x02\x12\x21" + ANN.public
    return {
        "nothing": b"",
        "a key without a signature": field(1, known),
        "another process's signature": good,
        "no signature": field(1, known) + field(2, b"x" * 70),
        "a key of another kind": field(1, b"\x08\x01\x12\x20" + bytes(32)) + good[39:],
        "a key of another curve": field(1, b"\x08\x02\x12\x21" + other.to_string("compressed")) + good[39:],
        "no point": field(1, b"\x08\x02\x12\x21\x02" + b"\xff" * 32) + good[39:],
        "a field cut off": good[:-1],
        "a length that does not end": b"\x0a" + b"\xff" * 10,
        "a group": b"\x0b" + good,
    }


@pytest.mark.parametrize("what", claims())
def test_who_proves_no_key_is_nobody(what: str) -> None:
    liar = Claiming(ANN, claims()[what])
    for dialer, listener in ((liar, Identity(BEN)), (Identity(BEN), liar)):
        with pytest.raises(NotProven):
            shake(dialer, listener)


@given(st.integers(0, 2), st.binary(max_size=300) | st.integers(0, 299))
def test_what_is_no_message_or_was_changed_on_the_way_ends_the_handshake(turn: int, change: bytes | int) -> None:
    writer, reader = Handshake(Identity(ANN), True), Handshake(Identity(BEN), False)
    for _ in range(turn):
        reader.read(writer.write())
        writer, reader = reader, writer
    message = writer.write()
    if isinstance(change, int):
        at = change % len(message)
        message = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
    else:
        message = sha256(change).digest()[:31] + change if turn else change[:31]
    if turn == 0 and len(message) == 32:  # a key like any other: it shows with the next message
        reader.read(message)
        with pytest.raises(NotProven):
            writer.read(reader.write())
    else:
        with pytest.raises(NotProven):
            reader.read(message)
