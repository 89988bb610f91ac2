"""Who is alive: when each member was heard of last. A leader that seems dead is skipped at once (rule 7)."""

from node.protocol.certificate import Electorate, Vote


class Liveness:
    """``silence``: ms after which a member is taken for dead. Times are monotonic, ms."""

    def __init__(self, member: int, electorate: Electorate, silence: int, now: int) -> None:
        self._member, self._electorate, self._silence = member, electorate, silence
        self._heard = [now] * len(electorate.keys)

    def heard(self, member: int, now: int) -> None:
        self._heard[member] = now

    def heard_vote(self, vote: Vote, now: int) -> None:
        """A vote too late to be counted is a sign of life, too. Its signature is checked only when it would be news."""
        if now - self._heard[vote.signer] >= self._silence // 4 and vote.is_valid(self._electorate):
            self._heard[vote.signer] = now

    def is_dead(self, leader: int, now: int) -> bool:
        """Whether a member has not been heard of for long while a quorum has."""
        alive = [now - heard < self._silence for heard in self._heard]
        alive[self._member] = True
        return not alive[leader] and sum(alive) >= self._electorate.quorum
