"""A blocking connection to the broker, for scripts: it publishes, and receives what is subscribed to, within bounds."""

import socket
import time
from collections import deque
from collections.abc import Mapping

from node.network.broker_url import BrokerUrl, packed
from node.network.resp import Answer, BrokerNonsense, Published, Reader

_CONNECT_SECONDS = 2.0
_SILENCE_SECONDS = 5.0
_READ_BYTES = 256 << 10
_ARRIVED_BYTES = 32 << 20
"""Received and not handed on yet, while a script does something else; what is beyond is dropped."""


class ConnectionLost(Exception):
    """The broker is gone, silent, or refuses; the text says which."""


class Connection:
    """``limits``: the topics to receive, with the largest body of each, bytes. After an error it is of no more use; close it.

    Raises:
        OSError: from the constructor, when it cannot be connected; ConnectionLost when it refuses.
    """

    def __init__(self, url: BrokerUrl, limits: Mapping[bytes, int]) -> None:
        self._reader = Reader(limits)
        self._arrived: deque[Published] = deque()
        self._arrived_bytes = self._answers = self._asked = 0
        self._socket = _connect(url)
        try:
            self._ask(packed(*url.hello))
            if limits:  # before anything else, so that no answer to a question can come too early
                self._send(packed("SUBSCRIBE", *limits))
            self._ask(packed("PING"))
        except BaseException:
            self.close()
            raise

    def publish(self, topic: str, body: bytes) -> None:
        """Publish, and wait until the broker has it. Raises ConnectionLost, OSError."""
        self._ask(packed("PUBLISH", topic, body))

    def receive(self, seconds: float) -> Published | None:
        """The next message; None when none comes within ``seconds``. Raises ConnectionLost, OSError."""
        deadline = time.monotonic() + seconds
        while not self._arrived:
            if not self._read(deadline - time.monotonic()):
                return None
        message = self._arrived.popleft()
        self._arrived_bytes -= len(message.body)
        return message

    def close(self) -> None:
        self._socket.close()

    def _send(self, command: bytes) -> None:
        self._socket.settimeout(_SILENCE_SECONDS)
        self._socket.sendall(command)

    def _ask(self, command: bytes) -> None:
        self._send(command)
        self._asked += 1
        deadline = time.monotonic() + _SILENCE_SECONDS
        while self._answers < self._asked:
            if not self._read(deadline - time.monotonic()):
                raise ConnectionLost("the broker is silent")

    def _read(self, seconds: float) -> bool:
        """Take in what comes next; whether something came in time."""
        self._socket.settimeout(max(0.001, seconds))
        try:
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            return False
        if not data:
            raise ConnectionLost("closed by the broker")
        try:
            items = self._reader.feed(data)
        except BrokerNonsense as error:
            raise ConnectionLost(str(error)) from None
        for item in items:
            if isinstance(item, Answer):
                self._answers += 1
                if item.error is not None:
                    raise ConnectionLost(f"it answers {item.error.partition(' ')[0]}")  # the rest may repeat a password
            elif self._arrived_bytes + len(item.body) <= _ARRIVED_BYTES:
                self._arrived.append(item)
                self._arrived_bytes += len(item.body)
        return True


def _connect(url: BrokerUrl) -> socket.socket:
    if url.path is not None:
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(_CONNECT_SECONDS)
        plain.connect(url.path)
        return plain
    plain = socket.create_connection((url.host, url.port), timeout=_CONNECT_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain if url.context is None else url.context.wrap_socket(plain, server_hostname=url.host)
