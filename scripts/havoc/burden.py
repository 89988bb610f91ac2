"""How much a network's committees bear: of each, f members who are down, without their vote or about to leave. Pure.

A committee of the coming epoch counts as soon as its members are known. ``documents``: of this epoch and, if it is known, of the
next one.
"""

from collections.abc import Collection, Iterable, Sequence

from node.protocol.epoch import EpochDocument


class Burden:
    """Who is not to be counted on, by name.

    Attributes:
        down: those that a fault has hit, until it is over. leaving: those told to leave, until they are gone.
    """

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.leaving: set[str] = set()
        self._voteless: dict[str, int] = {}
        """Until which epoch those have no vote whose disks are lost."""

    def lose_vote(self, name: str, until: int) -> None:
        """It lost what it would have to know to vote, up to epoch ``until``."""
        self._voteless[name] = max(until, self._voteless.get(name, 0))

    def of(self, epoch: int) -> set[str]:
        """All of them in an epoch."""
        return self.down | self.leaving | {name for name, until in self._voteless.items() if until >= epoch}

    def bearable(self, wanted: Iterable[str], documents: Sequence[EpochDocument]) -> list[str]:
        """Those of ``wanted``, the first ones first, who can be a burden together."""
        taken: list[str] = []
        for name in wanted:
            if name not in taken and all(self._bears(document, name, taken) for document in documents):
                taken.append(name)
        return taken

    def overburdened(self, documents: Sequence[EpochDocument]) -> set[str]:
        """Who is down and has a seat in a committee that bears no more than that, or less."""
        return {
            name
            for document in documents
            for members in committees(document)
            if len(members & self.of(document.number)) > most(members)
            for name in members & self.down
        }

    def _bears(self, document: EpochDocument, name: str, taken: Collection[str]) -> bool:
        burden = {*self.of(document.number), *taken, name}
        return all(len(members & burden) <= most(members) for members in committees(document) if name in members)


def committees(document: EpochDocument) -> list[set[str]]:
    """The members' names, by shard."""
    return [{member.name for member in committee.members} for committee in document.committees]


def most(members: Collection[str]) -> int:
    """f."""
    return (len(members) - 1) // 3
