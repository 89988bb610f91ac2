"""A client of a running network for scripts: one blocking connection to the broker, and what ``node.client`` makes of it.

Nothing that arrives can end a script: what is not signed by who may say it is skipped.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from node.client.epochs import Epochs, NewDocument, News
from node.client.questions import Question, Questions, read_reply
from node.network.broker_url import BrokerUrl
from node.protocol.certificate import Electorate
from node.protocol.change import Stage
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES, MAX_FRAME_BYTES
from node.protocol.queries import EVERYONE, Request
from node.protocol.topics import asks_topic, bulletins_topic, epoch_topic
from scripts.devnet.connection import Connection, ConnectionLost
from scripts.devnet.layout import Devnet

ANSWER_SECONDS = 2.0
RETRY_SECONDS = 0.2
MAX_KEPT_BYTES = 1 << 30
"""Of what is kept of the epochs, bytes."""
Handler = Callable[[bytes], None]


class ClientError(Exception):
    """The network cannot be asked; the text says why."""


class Client:
    """Close it, or use it in a ``with``. A broker that is away is tried again while something is waited for.

    Attributes:
        epochs: what the coordinator announces and what followed from it, or what was kept of that.
    """

    def __init__(self, url: str, genesis: Genesis, kept: Path | None = None) -> None:
        """``kept``: a file with what is known of the epochs, read if it is there and written when one begins.

        Raises:
            ValueError: ``url`` is no broker's.
        """
        self.genesis, self.epochs = genesis, Epochs(genesis)
        self._url = BrokerUrl(url)
        self._connection: Connection | None = None
        self._kept = kept
        self._has_followed = False
        """Whether it was waited for the epochs that began meanwhile."""
        self._questions = Questions(genesis.network, secrets.token_hex(16))
        self._handlers: dict[str, tuple[int, Handler]] = {}
        self.subscribe(epoch_topic(genesis.network), MAX_FRAME_BYTES, self._announced)
        self.subscribe(bulletins_topic(genesis.network), MAX_FRAME_BYTES, self._bulletined)
        self.subscribe(self._questions.topic, MAX_BROKER_BODY_BYTES, self._replied)
        if kept is not None:
            with suppress(OSError, DecodeError):
                for body in decode(tuple[bytes, ...], kept.read_bytes(), MAX_KEPT_BYTES):
                    self.epochs.restore(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def subscribe(self, topic: str, largest: int, handler: Handler) -> None:
        """Have what comes on a topic, in ``largest`` bytes at most, handed to ``handler``, from the next ``poll`` on."""
        self._hang_up()
        self._handlers[topic] = largest, handler

    def publish(self, topic: str, body: bytes) -> None:
        """Raises ClientError."""
        try:
            self._connect().publish(topic, body)
        except (ConnectionLost, OSError) as error:
            self._hang_up()
            raise ClientError(f"the broker cannot be reached: {error}") from None

    def poll(self, seconds: float) -> None:
        """Hand on the next message, or return after ``seconds``."""
        deadline = time.monotonic() + seconds
        with suppress(ClientError):
            for ask in self.epochs.asks(time.monotonic_ns() // 1_000_000):
                self.publish(asks_topic(self.genesis.network), ask)
        try:
            message = self._connect().receive(seconds)
        except (ConnectionLost, OSError):
            self._hang_up()
            time.sleep(max(0.0, min(RETRY_SECONDS, deadline - time.monotonic())))
            return
        if message is not None:
            _, handler = self._handlers[message.topic.decode()]
            handler(message.body)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Poll until ``done``; whether that was within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not done():
            if (left := deadline - time.monotonic()) <= 0:
                return False
            self.poll(min(left, 0.5))
        return True

    def document(self, seconds: float = 3.0) -> EpochDocument:
        """The document in force, the latest as far as the network tells of it within ``seconds``.

        Raises:
            ClientError: none was kept and none comes in time.
        """
        if not self._has_followed:
            self.wait(self._is_current, seconds)
            self._has_followed = self.epochs.document is not None
        if self.epochs.document is None:
            raise ClientError("no epoch document: none was kept, and no coordinator announces one")
        return self.epochs.document

    def _is_current(self) -> bool:
        """Whether the register of the epoch that is known tells that it goes on."""
        register = self.epochs.chronicle.register
        return register is not None and register.change.stage is not Stage.CLOSED

    def ask(self, electorate: Electorate, request: Request, member: int = EVERYONE) -> Question:
        """Ask without waiting: ``poll`` brings the answers. ``close`` it after. Raises ClientError."""
        question = self._questions.ask(electorate, request, secrets.token_bytes(16), member)
        self.publish(question.topic, question.body)
        return question

    def close(self, question: Question) -> None:
        self._questions.close(question)

    def answers(
        self, electorate: Electorate, request: Request, member: int = EVERYONE, seconds: float = ANSWER_SECONDS
    ) -> Question:
        """Ask a committee's members and wait until all have answered, or ``seconds``. Raises ClientError."""
        question = self.ask(electorate, request, member)
        self.wait(lambda: question.is_done, seconds)
        self.close(question)
        return question

    def _connect(self) -> Connection:
        if self._connection is None:
            limits = {topic.encode(): largest for topic, (largest, _) in self._handlers.items()}
            self._connection = Connection(self._url, limits)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _announced(self, body: bytes) -> None:
        self._keep(self.epochs.announce(body))

    def _bulletined(self, body: bytes) -> None:
        self._keep(self.epochs.hear(body))

    def _keep(self, news: Sequence[News]) -> None:
        if self._kept is not None and any(isinstance(one, NewDocument) for one in news):
            numbers = range(1, len(self.epochs.documents) + 1)
            self._kept.write_bytes(encode([self.epochs.stored(number) for number in numbers]))

    def _replied(self, body: bytes) -> None:
        reply = read_reply(body, self.epochs.electorates)
        if reply is not None:
            self._questions.take(reply)


def devnet_client(devnet: Devnet) -> Client:
    """A client of the network of a folder, which keeps the epoch document there. Raises ValueError, OSError."""
    return Client(devnet.broker_url, read_genesis(devnet.folder.genesis), devnet.folder.run / "epochs")
