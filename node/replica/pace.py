"""How long a leader with work pauses between blocks: by what a block costs here and now, and by what waits for the next one.

A block costs all members about the same, whatever is in it. So a leader that waits gets more into it for that price, as long as
more comes meanwhile; whoever is alone only waits. What a block costs is measured: the time from its execution to its finality,
which is longer where disks are slow, lines are long or processes share a core, and longer under load.
"""

from node.protocol.genesis import Parameters

_LONE, _MANY = 3, 6
"""The pause, in such times: when one transaction waits, and when very many do."""
_PATIENCE = 60
_SHARE = 1 / 8
"""Of the newest measurement in what is remembered."""


class Pace:
    """Also keeps the bound of ids to be remembered: a leader earns a full block with ``block_interval``, others in proportion."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._longest = min(parameters.heartbeat, parameters.view_timeout // 16)  # who pauses for an eighth counts as late
        self._round = parameters.block_interval / _LONE  # a guess, until blocks have become final here
        self._to_earn = 0

    def on_block(self, transactions: int) -> None:
        """The last block has so many."""
        self._to_earn = -(-transactions * self._parameters.block_interval // self._parameters.block_transactions)

    def on_final(self, took: int) -> None:
        """A block became final ``took`` ms after it was executed here. One that took very long says little: somebody failed. One
        that took none says nothing: it was final before it came here."""
        if took > 0:
            self._round += (min(took, 2 * self._round + 1, self._longest) - self._round) * _SHARE

    @property
    def patience(self) -> int:
        """How long to wait, ms, for what is on its way from others: where blocks take long, that does, too."""
        return max(_PATIENCE, int(2 * self._round))

    def pause(self, waiting: int) -> int:
        """From the last block on, ms, when so many transactions and records wait: at least one. What is full need not fill."""
        if waiting >= self._parameters.block_transactions:
            return self._to_earn
        rounds = _MANY - (_MANY - _LONE) / waiting
        return max(self._to_earn, min(self._longest, int(self._round * rounds)))
