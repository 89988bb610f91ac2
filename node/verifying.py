"""Checks signatures between the turns of the loop, few at a time: those that a proposal waits for overtake those of clients. Very
few are checked on the spot.

Not in a thread: each check would give up the interpreter and wait to get it back, while the loop is busy 5 ms for each.
"""

from collections import deque
from collections.abc import Callable, Sequence

import trio

from node.effects import CheckSignatures
from node.events import For, SignaturesChecked
from node.protocol.chain import Chain
from node.protocol.transaction import Transaction

SIGNATURES = 64
"""Checked in one go: so long, two to four milliseconds, votes wait for what clients have sent."""
FEW = 4
"""Signatures, and nothing else under check: to wait for a turn would cost as much as these do."""
MAX_UNCHECKED = 4096
"""Signatures of clients' transactions under check, beyond which further ones should wait."""


class _Check:
    """``verdicts``: of the first transactions, as far as they are known."""

    def __init__(self, chain: Chain, effect: CheckSignatures) -> None:
        self.chain, self.effect = chain, effect
        self.verdicts: list[bool] = []

    @property
    def rest(self) -> Sequence[Transaction]:
        return self.effect.transactions[len(self.verdicts) :]


class Verifying:
    """``answer`` is called with each result."""

    def __init__(self, answer: Callable[[For], None]) -> None:
        self._answer = answer
        self._later: deque[_Check] = deque()
        self._urgent: deque[_Check] = deque()
        self._unchecked = 0
        self._wake = trio.Event()

    @property
    def has_room(self) -> bool:
        """Whether more transactions of clients should be handed in now."""
        return self._unchecked < MAX_UNCHECKED

    def check(self, chain: Chain, effect: CheckSignatures) -> None:
        """Answer this one of a chain when its turn has come."""
        if not self._urgent and not self._later and signatures(effect.transactions) <= FEW:
            self._answer(For(chain, SignaturesChecked(effect.token, tuple(_verdicts(effect.transactions)))))
            return
        (self._urgent if effect.urgent else self._later).append(_Check(chain, effect))
        if not effect.urgent:
            self._unchecked += signatures(effect.transactions)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            while not self._urgent and not self._later:
                self._wake = trio.Event()
                await self._wake.wait()
            queue = self._urgent or self._later
            check = queue[0]
            part = first(check.rest, SIGNATURES)
            check.verdicts += _verdicts(part)
            if not check.effect.urgent:
                self._unchecked -= signatures(part)
            if not check.rest:
                queue.popleft()
                self._answer(For(check.chain, SignaturesChecked(check.effect.token, tuple(check.verdicts))))
            await trio.lowlevel.checkpoint()


def signatures(transactions: Sequence[Transaction]) -> int:
    """How many they have together."""
    return sum(len(transaction.witnesses) for transaction in transactions)


def first(transactions: Sequence[Transaction], most: int) -> Sequence[Transaction]:
    """As many of the first as have ``most`` signatures together, but one at least."""
    for count, transaction in enumerate(transactions):
        most -= len(transaction.witnesses)
        if most < 0:
            return transactions[: max(1, count)]
    return transactions


def _verdicts(transactions: Sequence[Transaction]) -> list[bool]:
    return [transaction.has_valid_signatures() for transaction in transactions]
