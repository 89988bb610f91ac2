"""One shard's chain: every block proven, linked to the last, none left out. Pure: proven blocks and the time in, the chain out.

Blocks are published and may be lost, so whoever follows also asks members for what is missing:

    follower.published([read_block(body, electorate), ...], now)   what came over the blocks topic
    follower.ask(now)                                              what to ask, and whom, if anything is due
    follower.answered([prove_block(block, electorate), ...], now)  what the member said; None: it did not, in the time it has

The first and the last return what they add to the chain. ``due`` says when to call ``ask`` again at the latest.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

from node.client.blocks import ProvenBlock
from node.protocol.block import Header
from node.protocol.certificate import Electorate
from node.protocol.queries import GetBlocks

STALL = 2.5
"""Seconds without a new block after which a member is asked (an idle shard makes one a second), and between fruitless rounds."""
REORDERING = 0.1
"""Seconds a missing block is given to arrive late before it is asked for."""
PACES = ((128, 1.5), (32, 3.0), (8, 6.0), (1, 12.0))
"""Blocks asked for at a time, and the seconds that a member has for its answer: at first, and after each time that all members
were asked for a block that is there and none gave it."""
_LAST_PACE = len(PACES) - 1
MAX_AHEAD = 64
"""Blocks kept that wait for one before them; those further ahead are asked for when it is their turn."""
_REMEMBERED = 256


class Ask(Struct, frozen=True):
    """A request to put to a member, and how many seconds to wait for its answer."""

    member: int
    request: GetBlocks
    patience: float


class Progress(Struct, frozen=True):
    """The chain's next blocks, in order, and what a person should know about what came: lines of text."""

    blocks: tuple[ProvenBlock, ...]
    notables: tuple[str, ...]


class Follower:
    """The chain from a given block on, up to its closing block, once it is known which that is.

    Attributes:
        height, hash: of the last block; 0 and empty before the first.
        known: the greatest height of a proven block seen.
        caught_up: whether the chain's end has been reached once: a published block was the next, or f+1 members in a row,
            so an honest one among them, had nothing more.
        refused: what came that was not proven.
        forks: proven blocks that contradict the chain: more than f members lie. The chain goes on with those that link.
        nonsense: blocks of the chain whose content makes no sense, though a quorum has certified them.
        end: header of the closing block; None while it is not known, or not there yet.
        is_cut_off: whether every member says that it does not keep the next block any more: only an archive can help. Of a chain
            that is over, whether none gives it, alone and with the greatest patience: who deleted all of it does not answer.
    """

    def __init__(self, electorate: Electorate, height: int = 0, block_hash: bytes = b"", *, from_now: bool = False) -> None:
        """``height``, ``block_hash``: of the block to go on from. ``from_now``: begin with the first block that is published."""
        self._electorate = electorate
        self._from_now = from_now
        self._time = 0
        self._ahead: dict[int, ProvenBlock] = {}
        self._hashes = {height: block_hash}
        self._contradictions: set[bytes] = set()
        self._next_member = self._last_asked = 0
        self._asking = False
        self._fruitless, self._heard_one, self._silence = 0, False, False
        self._pace, self._asked_at = 0, 0.0
        self._gap_since: float | None = None
        self._grown = self._rest = -math.inf
        self.height, self.hash, self.known = height, block_hash, height
        self._without: set[int] = set()
        self.end: Header | None = None
        self.caught_up = self.is_cut_off = False
        self.refused = self.forks = self.nonsense = 0

    def finish(self, end: Header) -> None:
        """The chain ends with this block."""
        self.end = end
        self._look_for_end()

    @property
    def is_complete(self) -> bool:
        """Whether the chain has been followed to its closing block: nothing comes after it."""
        return self.end is not None and self.height >= self.end.height

    @property
    def due(self) -> float:
        """When ``ask`` will have something to say if nothing comes until then: the clock's time, in seconds."""
        if self._from_now or self.is_complete:
            return math.inf
        if self._asking:
            return -math.inf
        return self._grown + STALL if self._gap_since is None else max(self._gap_since + REORDERING, self._rest)

    def ask(self, now: float) -> Ask | None:
        """What to ask now, and whom: the next member in turn. Report the answer, or that there was none, to ``answered``."""
        if now < self.due:
            return None
        if not self._asking:
            self._asking, self._fruitless, self._heard_one, self._silence = True, 0, False, False
        self._asked_at, (count, patience) = now, PACES[self._pace]
        self._last_asked, self._next_member = self._next_member, (self._next_member + 1) % len(self._electorate.keys)
        return Ask(self._last_asked, GetBlocks(self.height + 1, count), patience)

    def published(self, blocks: Iterable[ProvenBlock | None], now: float) -> Progress:
        """Take in published blocks; None stands for one that was not proven."""
        progress = self._take(blocks, now)
        if progress.blocks and self.height >= self.known:
            self.caught_up, self._asking = True, False
        return progress

    def answered(
        self, blocks: Iterable[ProvenBlock | None] | None, now: float, oldest: int = 1, *, is_sent: bool = True
    ) -> Progress:
        """Take in a member's answer; None: it gave none. ``oldest``: height of the first block it keeps. ``is_sent``: whether the
        question left at all. The next one is asked until f+1 in a row had nothing new; or all of them, ever more patiently, if
        some are silent and a block is known to be there."""
        progress = self._take(blocks or (), now)
        if blocks is not None:
            progress = self._note_oldest(progress, oldest)
        elif is_sent and self.end is not None and self._pace == _LAST_PACE:
            progress = self._lacks(progress, "gives")
        if not self._asking:
            return progress
        self._heard_one |= blocks is not None
        self._silence |= blocks is None and is_sent
        if progress.blocks:
            self._fruitless, self._silence = 0, False
            self._pace = self._pace_after(now - self._asked_at)
            return progress
        self._fruitless += 1
        if self._silence and is_sent and self._is_behind:
            if self._fruitless < len(self._electorate.keys):
                return progress
            if self._pace < _LAST_PACE:
                self._pace, self._fruitless, self._silence = self._pace + 1, 0, False
                return progress
        if self._fruitless > self._electorate.faults_tolerated:
            self._asking, self._grown, self._rest = False, now, now + STALL
            self.caught_up |= self._heard_one and self.height >= self.known and not self._without
        return progress

    @property
    def _is_behind(self) -> bool:
        """Whether the next block is known to be there."""
        return not self.is_complete and (self.end is not None or self.height < self.known)

    def _pace_after(self, seconds: float) -> int:
        """The quickest pace at which a member that has just taken so long would need half of its time, or the present one."""
        count = PACES[self._pace][0]
        fits = (pace for pace, (more, patience) in enumerate(PACES[: self._pace]) if seconds * more / count <= patience / 2)
        return next(fits, self._pace)

    def _note_oldest(self, progress: Progress, oldest: int) -> Progress:
        if progress.blocks or oldest <= self.height + 1:
            self._without.clear()
            self.is_cut_off = False
            return progress
        return self._lacks(progress, "keeps")

    def _lacks(self, progress: Progress, does: str) -> Progress:
        self._without.add(self._last_asked)
        if self.is_cut_off or len(self._without) < len(self._electorate.keys):
            return progress
        self.is_cut_off = True
        text = f"shard {self._electorate.shard}: no member {does} block {self.height + 1} any more; an archive does"
        return Progress(progress.blocks, (*progress.notables, text))

    def _take(self, blocks: Iterable[ProvenBlock | None], now: float) -> Progress:
        came = list(blocks)
        proven = sorted((block for block in came if block is not None), key=lambda block: block.header.height)
        run: list[ProvenBlock] = []
        notables: list[str] = []
        if refused := len(came) - len(proven):
            self.refused += refused
            notables.append(f"shard {self._electorate.shard}: {refused} unproven blocks refused")
        for block in proven:
            self.known = max(self.known, block.header.height)
            self._place(block, run, notables)
        if run:
            self._grown, self._rest = now, -math.inf
        self._gap_since = None if self.height >= self.known else now if self._gap_since is None else self._gap_since
        self._look_for_end()
        if not self._is_behind:
            self._pace = 0
        return Progress(tuple(run), tuple(notables))

    def _look_for_end(self) -> None:
        if self.is_complete:
            self.caught_up, self._asking = True, False
            self._ahead.clear()

    def _place(self, block: ProvenBlock, run: list[ProvenBlock], notables: list[str]) -> None:
        height = block.header.height
        if self._from_now or height == self.height + 1:
            following: ProvenBlock | None = block
            while following is not None and self._extend(following, notables):
                run.append(following)
                following = self._ahead.pop(self.height + 1, None)
        elif height > self.height:
            if height <= self.height + MAX_AHEAD and not self.is_complete:
                self._ahead[height] = block
        elif self._hashes.get(height, block.hash) != block.hash:
            self._contradict(block, notables)

    def _extend(self, block: ProvenBlock, notables: list[str]) -> bool:
        header = block.header
        if self.is_complete:  # what comes after the closing block is empty
            return False
        if self.end is not None and header.height == self.end.height and block.hash != self.end.hash:
            self._contradict(block, notables)
            return False
        if self.hash and header.parent != self.hash and not self._from_now:
            self._contradict(block, notables)
            return False
        if odd := self._oddities(block):
            self.nonsense += 1
            notables.append(f"shard {header.shard} height {header.height}: certified, but {' and '.join(odd)}")
        self._from_now = False
        self.height, self.hash, self._time = header.height, block.hash, header.time
        self._hashes[self.height] = block.hash
        self._ahead.pop(self.height, None)
        self._hashes.pop(self.height - _REMEMBERED, None)
        return True

    def _oddities(self, block: ProvenBlock) -> list[str]:
        found = []
        if block.unreadable:
            found.append(f"{block.unreadable} parts of its payload cannot be read")
        if block.header.time < self._time:
            found.append("its time is before its parent's")
        if block.header.proposer >= len(self._electorate.keys):
            found.append("its proposer is no member")
        return found

    def _contradict(self, block: ProvenBlock, notables: list[str]) -> None:
        self.forks += 1
        if block.hash not in self._contradictions and len(self._contradictions) < _REMEMBERED:
            self._contradictions.add(block.hash)
            notables.append(f"shard {block.header.shard} height {block.header.height}: a second certified chain")
