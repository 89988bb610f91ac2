"""A node's disk: what was written, all of a transaction or nothing. Survives crashes. Reads like ``node.storage.Storage``."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from node.effects import BeginHandoff, Checkpoint, Commit, FinishHandoff, Hold, Journal, LoseVotes, Pledge, Row, StoreParts
from node.protocol.block import skip_height
from node.protocol.checkpoint import Beginning, CertifiedCheckpoint, Ids, Rows

_ID_BYTES = 32


class Disk:
    """The tables of a node's database, in memory; checksums and files left out.

    Attributes:
        oldest: height of the first block from which on all are stored, or will be.
    """

    def __init__(self) -> None:
        self._pledge: Pledge | None = None
        self._journal: dict[tuple[int, str], Journal] = {}
        self.oldest = 1
        self._blocks: list[bytes] = []
        self._linked: dict[int, bytes] = {}
        self._bundles: dict[int, dict[int, bytes]] = {}
        self._sequences: dict[int, int] = {}
        self._rows: dict[int, dict[bytes, bytes | None]] = {}
        self._ids: defaultdict[bytes, bytes] = defaultdict(bytes)
        self._beginning: Beginning | None = None
        self._checkpoint: tuple[int, int] | None = None
        self._handed_over: CertifiedCheckpoint | None = None
        self._held: int | None = None
        self._fetched: dict[bytes, bytes | None] = {}
        self._fetched_ids: dict[bytes, bytes] = {}

    def begin(
        self, beginning: Beginning, rows: Iterable[tuple[bytes, bytes]], included: Iterable[tuple[bytes, int, bytes]]
    ) -> None:
        """One transaction."""
        if self._beginning is not None or self.height or self._rows:
            raise AssertionError("a chain begins twice")
        self._beginning, self._rows = beginning, {0: dict(rows)}
        self._ids.update((key, ids) for key, _, ids in included)

    @property
    def height(self) -> int:
        return self.oldest + len(self._blocks) - 1

    def write(self, effects: Sequence[Row]) -> None:
        """One transaction."""
        for effect in effects:
            match effect:
                case Journal(view, slot, _):
                    self._journal[(view, slot)] = effect
                case Commit():
                    self._commit(effect)
                case Checkpoint(height, rows, certified_at):
                    self._rows.setdefault(height, {}).update(rows)
                    if certified_at is not None:
                        self._checkpoint = height, certified_at
                case Pledge():
                    self._pledge = effect
                case LoseVotes():
                    self._pledge = None
                    self._journal.clear()
                case _:
                    self._hand_over(effect)

    def _commit(self, commit: Commit) -> None:
        height, view, _, encoded, bundles, taken, included, past = (getattr(commit, name) for name in commit.__struct_fields__)
        if height != self.height + 1:
            raise AssertionError(f"block {height} is stored after {self.height}")
        self._blocks.append(encoded)
        self._forget_votes(view)
        for destination, sequence, data in bundles:
            before = self._sequences.get(destination, 0 if self._handed_over is None else None)
            if before is not None and sequence != before + 1:
                raise AssertionError(f"bundle {sequence} to {destination} is stored after {before}")
            self._sequences[destination] = sequence
            self._bundles.setdefault(destination, {})[sequence] = data
        for destination, through in taken:
            channel = self._bundles.get(destination, {})
            self._bundles[destination] = {number: data for number, data in channel.items() if number > through}
        for key, start, ids in included:
            if start * _ID_BYTES != len(self._ids[key]):
                raise AssertionError(f"id {start} of {key.hex()} is stored after {len(self._ids[key]) // _ID_BYTES}")
            self._ids[key] += ids
        self._drop_blocks(past)

    def _drop_blocks(self, past: int) -> None:
        """One at a time: a disk that drops more is no other."""
        last, whole = self.oldest, self._checkpoint[0] if self._checkpoint is not None else 0
        if last > past or last >= min(whole, self._held or whole):
            return
        kept, linked = self._linked | {last: self._blocks.pop(0)}, [last]
        while below := skip_height(linked[-1]):
            linked.append(below)
        self._linked = {height: kept[height] for height in linked if height in kept}
        self.oldest += 1

    def _forget_votes(self, view: int) -> None:
        self._journal = {key: record for key, record in self._journal.items() if key[0] > view}

    def _hand_over(self, effect: Hold | BeginHandoff | StoreParts | FinishHandoff) -> None:
        match effect:
            case Hold(height):
                self._held = height
            case BeginHandoff():
                self._fetched, self._fetched_ids = {}, {}
            case StoreParts(parts):
                for part in parts:
                    if isinstance(part, Rows):
                        self._fetched.update(part.rows)
                    elif isinstance(part, Ids):
                        self._fetched_ids[part.place] = part.ids
            case FinishHandoff(checkpoint):
                header = checkpoint.header
                self.oldest, self._blocks, self._bundles, self._sequences = header.height + 1, [], {}, {}
                self._linked = {}
                self._rows, self._ids = {header.height: self._fetched}, defaultdict(bytes, self._fetched_ids)
                self._checkpoint, self._handed_over = (header.height, checkpoint.certifying.height), checkpoint
                self._forget_votes(header.view)
                self._held, self._fetched, self._fetched_ids = None, {}, {}

    # -- as node.storage.Storage has it: what recovery and answers to peers read -------------------------------------

    def beginning(self) -> Beginning | None:
        return self._beginning

    def pledge(self) -> Pledge | None:
        return self._pledge

    def journal(self) -> list[Journal]:
        return [self._journal[key] for key in sorted(self._journal)]

    def block(self, height: int) -> bytes | None:
        if height >= self.oldest:
            return self._blocks[height - self.oldest] if height <= self.height else None
        return self._linked.get(height)

    def blocks(self, first: int, limit_bytes: int, count: int = 256) -> list[bytes]:
        found: list[bytes] = []
        if first < self.oldest:
            return found
        for data in self._blocks[first - self.oldest : first - self.oldest + count]:
            limit_bytes -= len(data)
            if found and limit_bytes < 0:
                break
            found.append(data)
        return found

    def blocks_descending(self) -> Iterator[tuple[int, bytes]]:
        for height in range(self.height, self.oldest - 1, -1):
            yield height, self._blocks[height - self.oldest]

    def bundles(self, destination: int, sequence: int, limit_bytes: int) -> list[bytes]:
        channel, found = self._bundles.get(destination, {}), list[bytes]()
        while sequence + len(found) in channel and len(found) < 256:
            data = channel[sequence + len(found)]
            limit_bytes -= len(data)
            if found and limit_bytes < 0:
                break
            found.append(data)
        return found

    def first_bundles(self) -> dict[int, int]:
        return {destination: min(channel) for destination, channel in self._bundles.items() if channel}

    def checkpoint(self) -> tuple[int, int] | None:
        return self._checkpoint

    def handed_over(self) -> CertifiedCheckpoint | None:
        return self._handed_over

    def rows(self, height: int) -> Iterator[tuple[bytes, bytes | None]]:
        for at in sorted(self._rows):
            if at <= height:
                yield from sorted(self._rows[at].items())

    def ids(self, key: bytes, count: int) -> bytes:
        return self._ids[key][: _ID_BYTES * count]

    def part(self, height: int, place: bytes) -> list[tuple[bytes, bytes]] | None:
        if height != self._held and (self._checkpoint is None or height != self._checkpoint[0]):
            return None
        digits, found = "".join(f"{digit:x}" for digit in place), dict(self.rows(height))
        rows = ((key, value) for key, value in sorted(found.items()) if sha256(key).hexdigest().startswith(digits))
        return [(key, value) for key, value in rows if value is not None]

    def row(self, height: int, key: bytes) -> bytes | None:
        return dict(self.part(height, b"") or ()).get(key)
