"""Questions to the members of a committee, over the broker. An answer counts only with the member's signature on it."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from gateway.broker import Broker
from gateway.problems import Problem
from node.protocol.certificate import Electorate
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.queries import Account, Answer, GetAccount, Query, Reply, Request
from node.protocol.topics import queries_topic, replies_topic

log = structlog.get_logger()
EVERYONE = -1
_MAX_UNREAD = 64
_ACCOUNT_ROUNDS = 4


@dataclass
class _Question:
    electorate: Electorate
    member: int
    replies: asyncio.Queue[Reply] = field(default_factory=asyncio.Queue)
    heard: set[int] = field(default_factory=set)


class Queries:
    """Asks members and sorts out their replies."""

    def __init__(self, broker: Broker, network: bytes) -> None:
        self._broker = broker
        self._network = network
        self._client = secrets.token_hex(16)
        self._open: dict[bytes, _Question] = {}
        self._unread: asyncio.Queue[bytes] = asyncio.Queue(_MAX_UNREAD)
        broker.subscribe(replies_topic(network, self._client), self._hear)

    async def ask(
        self, electorate: Electorate, member: int, request: Request, timeout: float, take: Callable[[Answer, int], bool]
    ) -> None:
        """Put ``request`` to ``member`` (or each, with EVERYONE) and hand every answer, and who gave it, to ``take``.

        Returns when ``take`` does with True, everybody asked has answered (each at most once), or ``timeout`` seconds are over.

        Raises:
            BrokerUnavailable: the question could not be sent.
        """
        id = secrets.token_bytes(16)
        question = self._open[id] = _Question(electorate, member)
        expected = len(electorate.keys) if member == EVERYONE else 1
        query = Query(id, self._client, member, request)
        try:
            await self._broker.publish(queries_topic(self._network, electorate.shard), encode(query))
            async with asyncio.timeout(timeout):
                for _ in range(expected):
                    reply = await question.replies.get()
                    if take(reply.answer, reply.member):
                        break
        except TimeoutError:
            return
        finally:
            del self._open[id]

    async def ask_one(self, electorate: Electorate, member: int, request: Request, timeout: float) -> Answer | None:
        """One member's answer, or None. Raises BrokerUnavailable."""
        answers: list[Answer] = []

        def keep(answer: Answer, _: int) -> bool:
            answers.append(answer)
            return True

        await self.ask(electorate, member, request, timeout, keep)
        return answers[0] if answers else None

    async def account(self, electorate: Electorate, address: bytes, not_before: int = 0) -> Account:
        """An account's balances at ``not_before`` or a later height, as f+1 members tell alike: one of them is honest.

        Raises:
            Problem: 503, not enough members agree in time.
            BrokerUnavailable: the question could not be sent.
        """
        agreed: list[Account] = []
        for _ in range(_ACCOUNT_ROUNDS):
            votes: Counter[Answer] = Counter()

            def count(answer: Answer, _: int, votes: Counter[Answer] = votes) -> bool:
                if isinstance(answer, Account) and answer.height >= not_before:
                    votes[answer] += 1
                    if votes[answer] > electorate.faults_tolerated:
                        agreed.append(answer)
                return bool(agreed)

            await self.ask(electorate, EVERYONE, GetAccount(address), 1.0, count)
            if agreed:
                return agreed[0]
        raise Problem(503, "no_agreement", "too few members of the committee give the same answer now", retry_after=2)

    def _hear(self, body: bytes) -> None:
        if not self._unread.full():  # whoever asked asks again
            self._unread.put_nowait(body)

    async def run(self) -> None:
        """Check replies and hand them out, until cancelled. In a thread: a list of blocks may be megabytes."""
        while True:
            reply = await asyncio.to_thread(self._read, await self._unread.get())
            question = self._open.get(reply.id) if reply else None
            if reply and question and reply.member not in question.heard and question.member in (EVERYONE, reply.member):
                question.heard.add(reply.member)
                question.replies.put_nowait(reply)

    def _read(self, body: bytes) -> Reply | None:
        try:
            reply = decode(Reply, body, MAX_BROKER_BODY_BYTES)
        except DecodeError as error:
            log.warning("reply refused", error=str(error))
            return None
        question = self._open.get(reply.id)
        return reply if question and reply.is_valid(question.electorate) else None
