"""Questions to the members of a committee, over the broker."""

import asyncio
import secrets
from collections.abc import Callable

from gateway.problems import Problem
from node.client.epochs import Epochs
from node.client.line import Line
from node.client.questions import Question, Questions, read_reply
from node.client.unread import Unread
from node.protocol.certificate import Electorate
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.queries import EVERYONE, Account, Answer, GetAccount, Request

_ACCOUNT_ROUNDS = 4


class Queries:
    """Asks members and waits for their answers, under a name of its own: they ration what they answer to each name."""

    def __init__(self, line: Line, epochs: Epochs, network: bytes) -> None:
        self._line = line
        self._epochs = epochs
        self._questions = Questions(network, secrets.token_hex(16))
        self._answered: dict[Question, asyncio.Event] = {}
        self._unread = Unread()
        line.subscribe(self._questions.topic, MAX_BROKER_BODY_BYTES, self._unread.put)  # whoever asked asks again

    async def ask(
        self,
        electorate: Electorate,
        request: Request,
        timeout: float,
        member: int = EVERYONE,
        enough: Callable[[Question], bool] = lambda question: False,
    ) -> Question:
        """The question with the answers that came until all that were asked had answered, ``enough`` or ``timeout`` seconds.

        Raises:
            BrokerUnavailable: the question could not be sent.
        """
        question = self._questions.ask(electorate, request, secrets.token_bytes(16), member)
        answered = self._answered[question] = asyncio.Event()
        try:
            await self._line.publish(question.topic, question.body)
            async with asyncio.timeout(timeout):
                while not question.is_done and not enough(question):
                    await answered.wait()
                    answered.clear()
        except TimeoutError:
            pass
        finally:
            self._questions.close(question)
            del self._answered[question]
        return question

    async def ask_one(self, electorate: Electorate, member: int, request: Request, timeout: float) -> Answer | None:
        """One member's answer, or None. Raises BrokerUnavailable."""
        return (await self.ask(electorate, request, timeout, member)).answer

    async def account(self, electorate: Electorate, address: bytes, not_before: int = 0) -> Account:
        """An account's balances at ``not_before`` or a later height, as f+1 members tell alike.

        Raises:
            Problem: 503, not enough members agree in time.
            BrokerUnavailable: the question could not be sent.
        """

        def enough(question: Question) -> bool:
            return question.agreed_account(not_before) is not None

        for _ in range(_ACCOUNT_ROUNDS):
            question = await self.ask(electorate, GetAccount(address), 1.0, enough=enough)
            if (account := question.agreed_account(not_before)) is not None:
                return account
        raise Problem(503, "no_agreement", "too few members of the committee give the same answer now", retry_after=2)

    async def run(self) -> None:
        """Check replies and hand them out, until cancelled. In a thread: a list of blocks may be megabytes."""
        while True:
            for body in await self._unread.take():
                reply = await asyncio.to_thread(read_reply, body, self._epochs.electorates)
                if reply is not None and (question := self._questions.take(reply)) is not None:
                    self._answered[question].set()
