"""Telling: what the members of a shard publish of the change to the next epoch, and when."""

from node.effects import Publish
from node.protocol.certificate import CertifiedHeader, Electorate
from node.protocol.change import Bulletin, Change, RegisterPhase, Stage
from node.protocol.codec import encode
from node.protocol.topics import bulletins_topic


class Telling:
    """One member's part."""

    def __init__(self, member: int, electorate: Electorate) -> None:
        self._member, self._electorate = member, electorate

    def bulletin(self, last: CertifiedHeader, change: Change) -> Bulletin:
        """What the last final block proves; ``change``: the shard's after it."""
        return Bulletin(self._electorate.epoch, last.header, last.finality, change)

    def news(self, last: CertifiedHeader, before: Change, after: Change, is_adopted: bool) -> list[Publish]:
        """A block became final. That the shard closed each member tells, whoever it has it from. The other steps of the register
        are told by the block's proposer and the f members after it: one of them is honest."""
        has_closed = after.stage is Stage.CLOSED and before.stage is not Stage.CLOSED
        behind = (self._member - last.header.proposer) % len(self._electorate.keys)
        is_in_turn = behind <= self._electorate.faults_tolerated and not is_adopted
        if not has_closed and not (is_in_turn and _step(before) != _step(after)):
            return []
        return [Publish(bulletins_topic(self._electorate.network), encode(self.bulletin(last, after)))]


def _step(change: Change) -> tuple[int, RegisterPhase] | None:
    """Where the register stands; None in all other shards."""
    return (change.attempt, change.register.phase) if change.register is not None else None
