"""The shell, with a scripted mind and a real database: what is not stored is not sent."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from config.settings import NodeSettings
from node import runtime, talking
from node.database import StorageFull
from node.effects import AcceptDocument, Broadcast, Commit, In, Journal, NodeEffect, Persist, Pledge, Publish, Row, Send
from node.leaving import begin_to_leave, has_left
from node.membership import Membership
from node.network.inbox import Inbox
from node.protocol.chain import Chain
from node.protocol.codec import decode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import Frame, Standing
from node.stores import Stores
from tests.chains import Network, key

NETWORK = Network(committees=1)
NODE, PEER = key("node 0"), key("node 1").public
CHAIN, OTHER = Chain(1, 0), Chain(2, 0)
FINAL = NETWORK.shards[0].add(), NETWORK.shards[0].add()
STEPS: list[list[NodeEffect]] = [
    [In(CHAIN, Send(PEER, Standing(1, 1))), In(CHAIN, Journal(1, "vote", b"1")), Publish("topic", b"1")],
    [Publish("topic", b"2"), In(CHAIN, Commit(1, 1, FINAL[0], b"block", ())), In(CHAIN, Send(PEER, Standing(2, 2), 1))],
    [Pledge(1, b"secret")],
    [In(OTHER, Send(PEER, Standing(3, 3))), AcceptDocument(NETWORK.signed), In(OTHER, Journal(3, "vote", b"3"))],
    [In(CHAIN, Pledge(1, b"secret")), AcceptDocument(NETWORK.opening)],
    [In(CHAIN, Commit(2, 2, FINAL[1], b"block", ())), In(CHAIN, Broadcast(Standing(4, 4)))],
]
"""What is broadcast goes to the committee also while the mind has no replica: another ledger is brought back."""


class Recording(Stores):
    """Says when something is stored. ``full``: so many writes of each kind from now on find no room."""

    def __init__(self, folder: Path, log: list[str], full: int) -> None:
        super().__init__(folder, NETWORK.genesis.network)
        self.log, self.full = log, {"chain": full, "node": full}

    def write(self, chain: Chain, rows: Sequence[Row]) -> None:
        self._stand_still("chain")
        super().write(chain, rows)
        self.log.append(f"stored in {chain.epoch}-{chain.shard} " + " ".join(type(row).__name__ for row in rows))

    def remember(self, records: Sequence[Persist]) -> None:
        self._stand_still("node")
        super().remember(records)
        self.log.append("remembered " + " ".join(type(record).__name__ for record in records))

    def _stand_still(self, kind: str) -> None:
        if self.full[kind]:
            self.full[kind] -= 1
            self.log.append("full")
            raise StorageFull("no space left")


class Line:
    """Stands for transport, broker or miner: writes down what leaves."""

    bytes_in = bytes_out = hashes = dropped = 0

    def __init__(self, log: list[str], document: Path, connected: object) -> None:
        self.log, self.document, self.connected = log, document, connected
        self.inbox = Inbox(lambda: None)

    async def run(self, *, task_status: Any) -> None:
        task_status.started()
        await trio.sleep_forever()

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def connect(self, peer: bytes, addresses: Sequence[str]) -> None:
        pass

    def send(self, peer: bytes, frame: bytes) -> None:
        sent = decode(Frame, frame, MAX_FRAME_BYTES)
        assert isinstance(sent.message, Standing)
        text = f"sent {sent.message.height} to {sent.epoch}-{sent.shard}"
        self.log.append(text + (", document accepted" if self.document.exists() else ""))

    def subscribe(self, topics: Mapping[str, int]) -> None:
        pass

    def publish(self, topic: str, body: bytes) -> None:
        if topic == "topic":
            self.log.append(f"published {body.decode()}")


class Mind:
    """Has its effects written down."""

    replica = document = None
    duties = {CHAIN: SimpleNamespace(electorate=NETWORK.shards[0].electorate)}

    def __init__(self, genesis: Any, key: Any, name: str, addresses: tuple[str, ...], stored: Any, keep_blocks: int) -> None:
        self.membership = Membership(genesis, key, name, addresses, stored)
        self._steps = iter(STEPS)
        self.ended = trio.Event()
        self.has_left = False

    def leave(self) -> None:
        self.has_left = True

    @property
    def deadline(self) -> int | None:
        return None if self.ended.is_set() else 0

    def start(self) -> list[NodeEffect]:
        return next(self._steps)

    def handle(self, event: object, at: object) -> list[NodeEffect]:
        if (step := next(self._steps, None)) is None:
            self.ended.set()
        return step or []


async def run(monkeypatch: pytest.MonkeyPatch, folder: Path, full: int) -> tuple[list[str], Stores]:
    """What the shell did, in order. ``full``: at so many attempts to write anything there is no room on the disk."""
    log: list[str] = []
    shell, stores = made(monkeypatch, folder, log, full)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shell.run)
        await shell.node.ended.wait()  # type: ignore[attr-defined]  # the scripted mind's
        nursery.cancel_scope.cancel()
    return log, stores


def made(monkeypatch: pytest.MonkeyPatch, folder: Path, log: list[str], full: int = 0) -> tuple[runtime.Runtime, Stores]:
    """The shell of a scripted mind."""
    monkeypatch.setattr(runtime, "Node", Mind)
    for module, name, connected in ((talking, "Transport", ()), (runtime, "Broker", False), (runtime, "Miner", None)):
        line = Line(log, folder / "epoch-document", connected)
        monkeypatch.setattr(module, name, lambda *_, line=line, **__: line)
    stores = Recording(folder, log, full)
    settings = NodeSettings(name="n", genesis="", key="", data=str(folder), coordinator="", broker="", metrics_port=0)
    return runtime.Runtime(settings, NETWORK.genesis, NODE, stores), stores


def test_the_shell_speaks_the_versions_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[frozenset[int]] = []
    monkeypatch.setattr(runtime, "Node", Mind)

    def transport(*_: object, versions: frozenset[int], **__: object) -> SimpleNamespace:
        told.append(versions)
        return SimpleNamespace(inbox=Inbox(lambda: None))

    monkeypatch.setattr(talking, "Transport", transport)
    with closing(Stores(tmp_path, NETWORK.genesis.network)) as stores:
        settings = NodeSettings(
            name="n", genesis="", key="", data=str(tmp_path), coordinator="", broker="redis://h", metrics_port=0
        )
        runtime.Runtime(settings, NETWORK.genesis, NODE, stores)
        runtime.Runtime(settings, NETWORK.genesis, NODE, stores, frozenset({1, 2}))
    assert told == [{1}, {1, 2}]


@pytest.mark.parametrize("runs_already", [False, True])
async def test_what_its_folder_says_has_it_leave_whether_it_is_told_before_it_starts_or_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs_already: bool
) -> None:
    monkeypatch.setattr(runtime, "_LOOK_SECONDS", 0.01)
    shell, stores = made(monkeypatch, tmp_path, [])
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            if runs_already:
                nursery.start_soon(shell.run)
                await trio.sleep(0.1)
                assert not shell.node.has_left
            begin_to_leave(tmp_path)
            if not runs_already:
                nursery.start_soon(shell.run)
    assert has_left(tmp_path)
    stores.close()


@pytest.mark.parametrize("full", [0, 3])
def test_what_is_sent_is_stored_before_and_a_full_disk_makes_the_node_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full: int
) -> None:
    log, stores = trio.run(run, monkeypatch, tmp_path, full, clock=trio.testing.MockClock(autojump_threshold=0.01))
    waits = ["full"] * full
    assert log == [
        *(*waits, "stored in 1-0 Journal", "sent 1 to 1-0", "published 1"),
        *("published 2", "sent 2 to 1-1"),
        *(*waits, "remembered Pledge"),
        *("stored in 2-0 Journal", "remembered AcceptDocument", "sent 3 to 2-0, document accepted"),
        *("stored in 1-0 Commit Pledge", "remembered AcceptDocument"),
        *(["sent 4 to 1-0, document accepted"] * 3),
        "stored in 1-0 Commit",
    ]
    assert stores.open(CHAIN).pledge() == Pledge(1, b"secret")
    assert stores.stored().pledges == ()
    assert [record.view for record in stores.open(OTHER).journal()] == [3]
    stores.close()
