"""The shell, with a scripted mind and a real database: what is not stored is not sent."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from config.settings import NodeSettings
from node import runtime
from node.database import StorageFull
from node.effects import AcceptDocument, Broadcast, Commit, Effect, Journal, Pledge, Publish, Send
from node.membership import Membership
from node.protocol.codec import encode
from node.protocol.messages import Standing
from node.recovery import write_document
from node.storage import Storage
from tests.chains import Network, key

NETWORK = Network(committees=1)
NODE, PEER = key("node 0"), key("node 1").public
STEPS: list[list[Effect]] = [
    [Send(PEER, Standing(1, 1)), Journal(1, "vote", b"1"), Publish("topic", b"1")],
    [Publish("topic", b"2"), Commit(1, 1, NETWORK.shards[0].add(), b"block", ()), Send(PEER, Standing(2, 2))],
    [Pledge(1, b"secret")],
    [Send(PEER, Standing(3, 3)), AcceptDocument(NETWORK.signed), Journal(3, "vote", b"3")],
    [Commit(2, 2, NETWORK.shards[0].add(), b"block", ()), Broadcast(Standing(4, 4))],
]
"""What is broadcast goes to the committee also while the mind has no replica: another ledger is brought back."""


class Recording(Storage):
    """Says when something is stored. ``full``: so many writes from now on find no room."""

    def __init__(self, path: Path, log: list[str]) -> None:
        super().__init__(path, NETWORK.genesis.network)
        self.log, self.full = log, 0

    def write(self, effects: Sequence[Any]) -> None:
        if self.full:
            self.full -= 1
            self.log.append("full")
            raise StorageFull("no space left")
        super().write(effects)
        self.log.append("stored " + " ".join(type(effect).__name__ for effect in effects))


class Line:
    """Stands for transport, broker or miner: writes down what leaves."""

    bytes_in = bytes_out = hashes = dropped = 0

    def __init__(self, log: list[str], document: Path, connected: object) -> None:
        self.log, self.document, self.connected = log, document, connected
        self._sender, self.inbox = trio.open_memory_channel[Any](0)

    async def run(self, *, task_status: Any) -> None:
        task_status.started()
        await trio.sleep_forever()

    def connect(self, peer: bytes, addresses: Sequence[str]) -> None:
        pass

    def send(self, peer: bytes, frame: bytes) -> None:
        number = next(n for n in range(9) if frame == encode(Standing(n, n)))
        self.log.append(f"sent {number}" + (", document accepted" if self.document.exists() else ""))

    def publish(self, topic: str, body: bytes) -> None:
        if topic == "topic":
            self.log.append(f"published {body.decode()}")


class Mind:
    """Has its effects written down."""

    replica = None
    electorate = NETWORK.shards[0].electorate

    def __init__(self, genesis: Any, key: Any, name: str, addresses: tuple[str, ...], stored: Any, keep_blocks: int) -> None:
        self.membership = Membership(genesis, key, name, addresses, stored)
        self._steps = iter(STEPS)
        self.ended = trio.Event()

    @property
    def deadline(self) -> int | None:
        return None if self.ended.is_set() else 0

    def start(self) -> list[Effect]:
        return next(self._steps)

    def handle(self, event: object, at: object) -> list[Effect]:
        if (step := next(self._steps, None)) is None:
            self.ended.set()
        return step or []


async def run(monkeypatch: pytest.MonkeyPatch, folder: Path, full: int) -> tuple[list[str], Storage]:
    """What the shell did, in order. ``full``: at so many attempts to write anything there is no room on the disk."""
    log: list[str] = []
    monkeypatch.setattr(runtime, "Node", Mind)
    for name, connected in (("Transport", ()), ("Broker", False), ("Miner", None)):
        line = Line(log, folder / "epoch-document", connected)
        monkeypatch.setattr(runtime, name, lambda *_, line=line, **__: line)
    left = [full]

    def document(path: Path, signed: Any) -> None:
        if left[0]:
            left[0] -= 1
            log.append("full")
            raise StorageFull("no space left")
        write_document(path, signed)

    monkeypatch.setattr(runtime, "write_document", document)
    storage = Recording(folder / "node.db", log)
    storage.full = full
    settings = NodeSettings(name="n", genesis="", key="", data=str(folder), coordinator="", broker="", metrics_port=0)
    shell = runtime.Runtime(settings, NETWORK.genesis, NODE, storage)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shell.run)
        await shell.node.ended.wait()  # type: ignore[attr-defined]  # the scripted mind's
        nursery.cancel_scope.cancel()
    return log, storage


def test_the_shell_speaks_the_versions_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[frozenset[int]] = []
    monkeypatch.setattr(runtime, "Node", Mind)
    monkeypatch.setattr(runtime, "Transport", lambda *_, versions, **__: told.append(versions))
    with closing(Storage(tmp_path / "node.db", NETWORK.genesis.network)) as storage:
        settings = NodeSettings(
            name="n", genesis="", key="", data=str(tmp_path), coordinator="", broker="redis://h", metrics_port=0
        )
        runtime.Runtime(settings, NETWORK.genesis, NODE, storage)
        runtime.Runtime(settings, NETWORK.genesis, NODE, storage, frozenset({1, 2}))
    assert told == [{1}, {1, 2}]


@pytest.mark.parametrize("full", [0, 3])
def test_what_is_sent_is_stored_before_and_a_full_disk_makes_the_node_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full: int
) -> None:
    log, storage = trio.run(run, monkeypatch, tmp_path, full, clock=trio.testing.MockClock(autojump_threshold=0.01))
    waits = ["full"] * full
    assert log == [
        *(*waits, "stored Journal", "sent 1", "published 1"),
        *("published 2", "sent 2", "stored Commit Pledge"),
        *("stored Journal", *waits, "sent 3, document accepted"),
        *(["sent 4, document accepted"] * 3),
        "stored Commit",
    ]
    assert storage.pledge() == Pledge(1, b"secret")
    assert [record.view for record in storage.journal()] == [3]
    storage.close()
