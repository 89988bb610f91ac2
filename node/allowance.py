"""What answering clients may cost a node: so much a second for all of them, and so much for each. Pure: the time is an input.

A client is whatever name a question has, and names cost nothing. So the bound for all protects the node, and the one for each
only keeps honest clients from getting in each other's way.
"""

from collections import OrderedDict

from node.network.pacing import Bucket

MAX_CLIENTS = 256


class Allowance:
    """``rate``: bytes of answers a second to all clients; half of it to one. Four seconds' worth may be used up at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._all = Bucket(rate, 4 * rate)
        self._clients: OrderedDict[str, Bucket] = OrderedDict()

    def admit(self, client: str, expected: int, now: float) -> bool:
        """Whether a question may be answered now; if so, ``expected`` bytes are charged for it. ``now``: seconds."""
        if not self._all.has_any(now) or not self._bucket(client).has_any(now):
            return False
        self.correct(client, expected, now)
        return True

    def correct(self, client: str, size: int, now: float) -> None:
        """The answer was larger by ``size`` bytes than expected, or smaller."""
        self._all.take(size, now)
        self._bucket(client).take(size, now)

    def _bucket(self, client: str) -> Bucket:
        """The client's; of too many the one that asked least recently is forgotten."""
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = Bucket(self._rate / 2, 2 * self._rate)
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        self._clients.move_to_end(client)
        return bucket
