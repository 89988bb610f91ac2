"""A node's disk: what was written, all of a transaction or nothing. Survives crashes. Reads like ``node.storage.Storage``."""

from collections.abc import Iterator, Sequence

from node.effects import Checkpoint, Commit, Journal, LoseVotes, Pledge


class Disk:
    """The tables of a node's database, in memory; checksums and files left out."""

    def __init__(self) -> None:
        self._pledge: Pledge | None = None
        self._journal: dict[tuple[int, str], Journal] = {}
        self._blocks: list[bytes] = []
        self._bundles: dict[int, dict[int, bytes]] = {}
        self._sequences: dict[int, int] = {}
        self._rows: dict[int, dict[bytes, bytes | None]] = {}
        self._checkpoint: tuple[int, int] | None = None

    @property
    def height(self) -> int:
        return len(self._blocks)

    def write(self, effects: Sequence[Journal | Commit | Checkpoint | Pledge | LoseVotes]) -> None:
        """One transaction."""
        for effect in effects:
            match effect:
                case Journal(view, slot, _):
                    self._journal[(view, slot)] = effect
                case Commit(height, view, _, encoded, bundles, taken):
                    if height != len(self._blocks) + 1:
                        raise AssertionError(f"block {height} is stored after {len(self._blocks)}")
                    self._blocks.append(encoded)
                    self._journal = {key: record for key, record in self._journal.items() if key[0] > view}
                    for destination, sequence, data in bundles:
                        before = self._sequences.get(destination, 0)
                        if sequence != before + 1:
                            raise AssertionError(f"bundle {sequence} to {destination} is stored after {before}")
                        self._sequences[destination] = sequence
                        self._bundles.setdefault(destination, {})[sequence] = data
                    for destination, through in taken:
                        channel = self._bundles.get(destination, {})
                        self._bundles[destination] = {number: data for number, data in channel.items() if number > through}
                case Checkpoint(height, rows, certified_at):
                    self._rows.setdefault(height, {}).update(rows)
                    if certified_at is not None:
                        self._checkpoint = height, certified_at
                case Pledge():
                    self._pledge = effect
                case LoseVotes():
                    self._pledge = None
                    self._journal.clear()

    # -- as node.storage.Storage has it: what recovery and answers to peers read -------------------------------------

    def pledge(self) -> Pledge | None:
        return self._pledge

    def journal(self) -> list[Journal]:
        return [self._journal[key] for key in sorted(self._journal)]

    def blocks(self, first: int, limit_bytes: int, count: int = 256) -> list[bytes]:
        found: list[bytes] = []
        for data in self._blocks[first - 1 : first - 1 + count]:
            limit_bytes -= len(data)
            if found and limit_bytes < 0:
                break
            found.append(data)
        return found

    def blocks_descending(self) -> Iterator[tuple[int, bytes]]:
        for height in range(len(self._blocks), 0, -1):
            yield height, self._blocks[height - 1]

    def bundles(self, destination: int, sequence: int, limit_bytes: int) -> list[bytes]:
        channel = self._bundles.get(destination, {})
        return [channel[number] for number in range(sequence, sequence + 256) if number in channel] if sequence in channel else []

    def checkpoint(self) -> tuple[int, int] | None:
        return self._checkpoint

    def rows(self, height: int) -> Iterator[tuple[bytes, bytes | None]]:
        for at in sorted(self._rows):
            if at <= height:
                yield from sorted(self._rows[at].items())
