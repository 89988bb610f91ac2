"""What the node's shell must not do, whatever arrives at once."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from config.settings import NodeSettings
from node import runtime
from node.effects import Abstain
from node.network.transport import Transport
from node.protocol.crypto import KeyPair
from node.protocol.epoch import SignedDocument
from node.protocol.limits import MAX_FRAME_BYTES
from node.recovery import recover, write_document
from node.storage import Storage
from tests.unit.test_replica import DOCUMENT, GENESIS, ISSUER, KEYS


@pytest.fixture
def node(tmp_path: Path) -> runtime.Runtime:
    """A node that was mining when it ended."""
    path = str(tmp_path)
    settings = NodeSettings(
        name="n", genesis=path, key=path, data=path, coordinator="/ip4/127.0.0.1/tcp/1", broker="redis://127.0.0.1:1"
    )
    storage = Storage(tmp_path / "node.db", GENESIS.network)
    storage.write([Abstain(0)])
    storage.put("begun", b"1")
    write_document(tmp_path / "epoch-document", SignedDocument(DOCUMENT, ISSUER.sign(DOCUMENT.hash)))
    return runtime.Runtime(settings, GENESIS, KeyPair(KEYS[0].secret), storage)


async def test_one_replica_is_made_however_often_the_coordinator_speaks_meanwhile(
    node: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two with one key would sign what contradicts each other."""
    recoveries: list[int] = []

    def slowly(*arguments: Any) -> Any:
        recoveries.append(1)
        time.sleep(0.2)
        return recover(*arguments)

    monkeypatch.setattr(runtime, "recover", slowly)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(node._perform_membership, [])
    assert len(recoveries) == 1
    assert node.replica is not None


async def test_a_message_larger_than_a_frame_is_not_sent_and_does_not_end_the_node(
    node: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(Transport, "send", lambda self, peer, frame: sent.append(frame))
    node._send(KEYS[1].public, bytes(MAX_FRAME_BYTES + 1))
    node._send(KEYS[1].public, b"small")
    assert sent == [b"small"]
