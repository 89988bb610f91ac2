"""multistream-select, with which two sides agree on a protocol. Pure.

Each message is its length as a varint, its text, and a newline. Source: https://github.com/multiformats/multistream-select
"""

from collections.abc import Sequence

_GREETING, _NO = "/multistream/1.0.0", "na"
MAX_MESSAGE_BYTES = 127
"""Longest message that is read: a name and a newline in fact. Its length is one byte."""

MAX_MESSAGES = 16
"""Of the other side: it proposes what it speaks, and not for ever."""


class NoAgreement(Exception):
    """The other side does not speak this protocol, or not multistream-select."""


class Negotiation:
    """One side of it. To be written first is ``hello``."""

    def __init__(self, protocols: Sequence[str], dialed: bool) -> None:
        """``protocols``: that this side speaks, the best first; one at least. ``dialed``: this side did, and proposes."""
        self._protocols = tuple(protocols)
        self._dialed = dialed
        self._messages = 0
        self._data = b""
        self._proposed = 0
        self.hello = _encode(_GREETING) + (_encode(self._protocols[0]) if dialed else b"")
        self.agreed: str | None = None
        self.refused: list[str] = []
        """What the other side proposed, and this one does not speak."""

    @property
    def is_done(self) -> bool:
        return self.agreed is not None

    @property
    def rest(self) -> bytes:
        """What came after the agreement."""
        return self._data

    def receive(self, data: bytes) -> bytes:
        """What to write in answer to ``data``.

        Raises:
            NoAgreement: see there.
        """
        self._data += data
        answer = b""
        while not self.is_done and (text := self._next()) is not None:
            answer += self._on(text)
        return answer

    def _next(self) -> str | None:
        if not self._data:
            return None
        length = self._data[0]
        if not 0 < length <= MAX_MESSAGE_BYTES:
            raise NoAgreement("a message that is too long, or empty")
        if len(self._data) <= length:
            return None
        message, self._data = self._data[1 : 1 + length], self._data[1 + length :]
        if not message.endswith(b"\n"):
            raise NoAgreement("a message without its newline")
        return message[:-1].decode("ascii", "replace")

    def _on(self, text: str) -> bytes:
        self._messages += 1
        if self._messages == 1:
            if text != _GREETING:
                raise NoAgreement(f"the peer speaks {text!r}")
        elif self._messages > MAX_MESSAGES:
            raise NoAgreement("the peer does not come to an end")
        elif self._dialed:
            return self._answered(text)
        elif text in self._protocols:
            self.agreed = text
            return _encode(text)
        elif text == "ls":
            return _encode("".join(f"{protocol}\n" for protocol in self._protocols))
        else:
            self.refused.append(text)
            return _encode(_NO)
        return b""

    def _answered(self, text: str) -> bytes:
        """To what was proposed last."""
        if text == self._protocols[self._proposed]:
            self.agreed = text
            return b""
        self._proposed += 1
        if text != _NO or self._proposed == len(self._protocols):
            raise NoAgreement(f"the peer answers {text!r}")
        return _encode(self._protocols[self._proposed])


def _encode(text: str) -> bytes:
    message = text.encode() + b"\n"
    return bytes([len(message)]) + message
