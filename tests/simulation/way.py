"""The way of a peer's message through a node's core, counted: ``python -m tests.simulation.way``.

A calm committee of four in the simulator works off payments; what happens in one of its nodes between a message and the effects
it leads to is watched call by call. A *pass* is a call from one file to another, that is, from one class to another; it *turns
back* when the other one is already waiting further up for an answer: then two classes share the knowledge of one thing.
``node.protocol``, which all share, does not count.
"""

import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec import Struct

import node
from node.network.events import Message
from node.node import Node
from node.protocol.codec import decode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Frame
from tests.simulation.plan import Links, Plan
from tests.simulation.world import World

_ROOT = Path(node.__file__).parent
_SHARED = _ROOT / "protocol"


class Way(Struct):
    """What one message led to."""

    calls: int = 0
    passes: int = 0
    back: int = 0
    rooms: set[str] = set()


class Watch:
    """A profiler for the calls inside ``node``, ``node.protocol`` apart."""

    def __init__(self) -> None:
        self.way = Way()
        self._stack: list[str | None] = ["shell"]

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._enter(frame)
        elif event == "return" and len(self._stack) > 1:
            self._stack.pop()

    def _enter(self, frame: FrameType) -> None:
        file = Path(frame.f_code.co_filename)
        if not file.is_relative_to(_ROOT) or file.is_relative_to(_SHARED):
            self._stack.append(None)
            return
        room = str(file.relative_to(_ROOT))
        others = [known for known in self._stack if known is not None]
        self.way.calls += 1
        self.way.rooms.add(room)
        if room != others[-1]:
            self.way.passes += 1
            self.way.back += room in others
        self._stack.append(room)


def watched(messages: int = 2_000) -> dict[str, list[Way]]:
    """The ways of so many messages, by kind, in one node."""
    plan = Plan(7, 2, 4, {}, Links((2, 4)), Links((2, 4)), (), (), (), tuple(range(60)), 1, 0.0, 60_000, 60_000)
    world, found = World(plan), defaultdict(list)
    target, original = world.nodes[1], Node.handle

    def handle(self: Node, event: Any, at: Any) -> Any:
        is_peers = isinstance(event, Message) and event.peer in world.by_key
        if self is not target.node or not is_peers or self.replica is None:
            return original(self, event, at)
        kind = type(decode(Frame, event.frame, MAX_FRAME_BYTES).message).__name__
        watch = Watch()
        sys.setprofile(watch)
        try:
            return original(self, event, at)
        finally:
            sys.setprofile(None)
            found[kind].append(watch.way)

    Node.handle = handle  # type: ignore[method-assign]
    try:
        world.start()
        world.run(plan.active, lambda: sum(map(len, found.values())) >= messages)
    finally:
        Node.handle = original  # type: ignore[method-assign]
    return dict(found)


def main() -> None:
    print(f"{'message':<16}{'seen':>6}{'calls':>8}{'passes':>8}{'back':>6}{'rooms':>7}   (mean; largest)")
    ways = watched()
    for kind, known in sorted(ways.items()):
        mean = [sum(getattr(way, name) for way in known) / len(known) for name in ("calls", "passes", "back")]
        worst = max(known, key=lambda way: way.passes)
        rooms = sum(len(way.rooms) for way in known) / len(known)
        print(
            f"{kind:<16}{len(known):>6}{mean[0]:>8.1f}{mean[1]:>8.1f}{mean[2]:>6.1f}{rooms:>7.1f}"
            f"   ({worst.calls} calls, {worst.passes} passes, {worst.back} back, {len(worst.rooms)} rooms)"
        )
    count = sum(map(len, ways.values()))
    passes, back = (sum(getattr(way, name) for known in ways.values() for way in known) / count for name in ("passes", "back"))
    print(f"all{count:>19}{'':8}{passes:>8.1f}{back:>6.1f}")


if __name__ == "__main__":
    main()
