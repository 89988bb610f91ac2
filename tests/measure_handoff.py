"""What it costs to hand a shard's state over, with many accounts: ``python -m tests.measure_handoff --accounts 1000000``.

Three members hand it to one with an empty disk, on real databases; the network is left out. While they do, blocks go on: of each
checkpoint all rows that it may have by the protocol are written. All take turns in one thread: seconds are its CPU time, so those
of one processor for all of them, and what a member waits because of its pace. What holds a member's loop is one event, with what
is decoded and encoded for it; storage is read and written beside it.
"""

import argparse
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from time import thread_time
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from msgspec import structs

from node.effects import BeginHandoff, Checkpoint, FinishHandoff, Hold, Send, SendParts, StoreParts
from node.handing_over import read_parts
from node.ledger.rules import HASHED_ROWS
from node.protocol.block import Balance, Header
from node.protocol.certificate import Finality, VoteKind
from node.protocol.codec import decode, encode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import PartsReply, PartsRequest, PeerMessage
from node.recovery import recover
from node.replica.handing_over import HandingOver
from node.replica.taking_over import TakingOver
from node.storage import Storage
from tests.chains import Network, Shard
from tests.handed_over import INTERVAL, hand_over
from tests.measure_checkpoint import key

T = TypeVar("T")
_AT = 200
_BLOCK = 50
"""Between two blocks, ms."""


class Times:
    """What took how long, by name: the longest, and all together, s."""

    def __init__(self) -> None:
        self.longest: defaultdict[str, float] = defaultdict(float)
        self.together: defaultdict[str, float] = defaultdict(float)

    def of(self, name: str, work: Callable[[], T]) -> T:
        started = thread_time()
        result = work()
        took = thread_time() - started
        self.longest[name] = max(self.longest[name], took)
        self.together[name] += took
        return result


def written(accounts: int) -> list[bytes]:
    """As many rows as one checkpoint may have. As ``Checkpointing`` hands them on, neighbours in the tree are together."""
    chosen = random.Random(1).sample(range(accounts), min(accounts, INTERVAL * HASHED_ROWS))
    return sorted(map(key, chosen), key=lambda row: sha256(row).digest()[0])


def blocks(rows: list[bytes]) -> Iterator[Checkpoint]:
    """Blocks go on: what each adds to the next checkpoint, all of it before the last tenth."""
    share = -(-len(rows) // (INTERVAL - INTERVAL // 10))
    for height in count(_AT + INTERVAL, INTERVAL):
        for number in range(INTERVAL):
            added = tuple((row, encode(Balance(height))) for row in rows[number * share :][:share])
            yield Checkpoint(height, added, height + INTERVAL if number == INTERVAL - 1 else None)


class Measured:
    """One handoff."""

    def __init__(self, shard: Shard, source: Storage, target: Storage, accounts: int, ids: int) -> None:
        opening = structs.replace(shard.genesis, document=shard.electorate.document)
        self.outline, self.proof = hand_over(source, accounts, ids, opening, _AT, partial(_finality, shard))
        self.shard, self.source, self.target = shard, source, target
        self.times, self.size, self.answers, self.blocks, self.now = Times(), 0, 0, 0, 0
        self.chain = blocks(written(accounts))
        state = cast(Any, SimpleNamespace(certified=self.outline))
        self.peers = {public: HandingOver(state) for public in shard.electorate.keys[:3]}
        self.member = TakingOver(shard.electorate, 0, 2)

    def run(self) -> None:
        member = self.member
        for peer in self.peers:
            member.heard(peer, 10_000)
        member.next_requests(0)
        for peer in self.peers:
            self.times.of("taking: the checkpoint's proof", partial(member.offered, peer, self.proof, 0))
        assert member.next_requests(0) == [BeginHandoff()]
        self.target.write([BeginHandoff()])
        begun, waited = thread_time(), 0.0
        while not member.is_whole:
            sent = self.times.of("taking: asking", partial(member.next_requests, self.now))
            for effect in sent:
                assert isinstance(effect, Send)
                self._answer(effect.peer, cast(PartsRequest, effect.message))
            if not sent:
                waited += max(1, member.deadline - self.now) / 1e3
            self.now = int((thread_time() - begun + waited) * 1e3)
            if self.blocks * _BLOCK < self.now:
                self.times.of("handing: storing what a block adds", partial(self.source.write, [next(self.chain)]))
                self.blocks += 1
        self.times.of("taking: the last write", partial(self.target.write, [FinishHandoff(self.proof)]))
        recovering = partial(recover, self.target, self.shard.rules, self.shard.electorate)
        state = self.times.of("taking: bringing it back, beside the loop", recovering).state
        assert state.checkpoint_root() == self.outline.root

    def _answer(self, peer: bytes, request: PartsRequest) -> None:
        """One request, on its way through both members."""
        times = self.times
        *held, wanted = self.peers[peer].answer(peer, request, self.now)
        self.source.write(cast(list[Hold], held))
        assert isinstance(wanted, SendParts)
        parts = times.of("handing: reading, beside the loop", partial(read_parts, self.source, wanted.height, wanted.parts))
        frame = times.of("handing: an event", partial(encode, PartsReply(wanted.height, parts)))
        self.size, self.answers = self.size + len(frame), self.answers + 1
        stored = times.of("taking: an event", partial(self._take, peer, frame))
        times.of("taking: storing, beside the loop", partial(self.target.write, stored))

    def _take(self, peer: bytes, frame: bytes) -> list[StoreParts]:
        return self.member.received(peer, cast(PartsReply, decode(cast(Any, PeerMessage), frame, MAX_FRAME_BYTES)), self.now)

    def tell(self) -> None:
        print(f"{self.now / 1e3:.1f} s, {self.size / 1e6:.1f} MB in {self.answers} answers; {self.blocks} blocks meanwhile")
        for name, longest in self.times.longest.items():
            print(f"  {name:42} at most {1e3 * longest:8.1f} ms, {self.times.together[name]:6.1f} s together", flush=True)


def _finality(shard: Shard, header: Header) -> Finality:
    return Finality((), shard.certificate(VoteKind.FINALIZE, header.view, header.hash))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=200_000)
    options = parser.parse_args()
    shard = Network(committees=1, checkpoint_interval=INTERVAL).shards[0]
    with tempfile.TemporaryDirectory() as folder:
        source, target = (Storage(Path(folder) / f"{name}.db", b"measured") for name in ("source", "target"))
        measured = Measured(shard, source, target, options.accounts, options.ids)
        print(f"{options.accounts} accounts, {options.ids} ids", flush=True)
        measured.run()
        measured.tell()
        source.close()
        target.close()


if __name__ == "__main__":
    main()
