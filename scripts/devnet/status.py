"""``up --status``: which processes run, and what each node itself says of its shard, in an answer it signed.

Nodes are asked through the broker, under the latest epoch document that the coordinator announces; the document is kept, so
that nodes can be asked while the coordinator is away. Documents and answers are checked before they are believed.
"""

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Announcement, InvalidDocument, SignedDocument
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.queries import GetStatus, NodeStatus, Query, Reply
from node.protocol.topics import epoch_topic, queries_topic, replies_topic
from scripts.devnet.layout import Devnet, Folder
from scripts.devnet.processes import programs_running, supervisor

ANSWER_SECONDS = 1.5
DOCUMENT_SECONDS = 1.5


def status(devnet: Devnet) -> dict[str, Any]:
    """All there is to say, as plain JSON values. What is down has ``pid`` null, ``running`` false."""
    folder = devnet.folder
    pids = {name: child.pid for name, child in programs_running(folder).items()}
    seats, answers = ask_nodes(folder, devnet.broker_url, read_genesis(folder.genesis), set(pids) & set(devnet.node_names))
    broker_up = "broker" in pids if devnet.external_broker is None else answers_ping(devnet.broker_url)
    nodes = [
        {
            "name": name,
            "shard": seats.get(name),
            "pid": pids.get(name),
            "running": name in pids,
            "height": answers[name].height if name in answers else None,
            "state_root": answers[name].state_root.hex() if name in answers else None,
            "metrics": devnet.metrics_url(index),
            "log": str(folder.log(name)),
        }
        for index, name in enumerate(devnet.node_names)
    ]
    processes = {name: pids.get(name) for name in ("coordinator", "gateway", "dashboard")}
    return {
        "running": broker_up and all(processes.values()) and all(node["running"] for node in nodes),
        "data": str(folder.data),
        "genesis": str(folder.genesis),
        "gateway": devnet.gateway_url,
        "dashboard": devnet.dashboard_url,
        "broker": {"url": devnet.broker_url, "pid": pids.get("broker"), "running": broker_up},
        "coordinator": {
            "pid": pids.get("coordinator"),
            "running": "coordinator" in pids,
            "address": devnet.coordinator_address,
            "metrics": f"http://127.0.0.1:{devnet.ports.coordinator_metrics}/metrics",
        },
        "processes": {"broker": pids.get("broker"), **processes},
        "supervisor": supervisor(folder),
        "nodes": nodes,
    }


def status_table(state: Mapping[str, Any]) -> str:
    """The same for people."""

    def process(name: str, pid: int | None, text: str) -> str:
        return f"{name:<14} {f'process {pid}' if pid else 'DOWN':<16} {text}"

    broker = state["broker"]
    lines = [
        process("broker", broker["pid"], broker["url"])
        if broker["pid"] or not broker["running"]
        else f"{'broker':<14} {'(not ours)':<16} {broker['url']}",
        process("coordinator", state["coordinator"]["pid"], state["coordinator"]["address"]),
        process("gateway", state["processes"]["gateway"], state["gateway"]),
        process("dashboard", state["processes"]["dashboard"], state["dashboard"]),
    ]
    for node in state["nodes"]:
        shard = "no shard yet" if node["shard"] is None else f"shard {node['shard']}"
        height = "does not answer" if node["height"] is None else f"height {node['height']}, state {node['state_root'][:16]}"
        lines.append(process(node["name"], node["pid"], f"{shard}  {height if node['running'] else ''}".rstrip()))
    return "\n".join(lines)


def answers_ping(url: str) -> bool:
    """Whether a broker is there."""
    with (
        suppress(redis.RedisError, OSError, ValueError),
        redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as c,
    ):
        return bool(c.ping())
    return False


def ask_nodes(folder: Folder, broker: str, genesis: Genesis, expected: set[str]) -> tuple[dict[str, int], dict[str, NodeStatus]]:
    """Shard and verified status by node name. Waits until each of ``expected`` has answered, at most a few seconds."""
    kept = folder.run / "epoch-document"
    inquiry = _Inquiry(genesis, _read_document(kept, genesis))
    with (
        suppress(redis.RedisError, OSError),
        redis.Redis.from_url(broker, socket_connect_timeout=1, socket_timeout=2) as client,
        client.pubsub(ignore_subscribe_messages=True) as pubsub,
    ):
        pubsub.subscribe(inquiry.replies, epoch_topic(genesis.network))
        begun = time.monotonic()
        inquiry.ask(client)
        while (now := time.monotonic()) < inquiry.asked + ANSWER_SECONDS and not inquiry.answered(expected):
            if inquiry.document is None and now > begun + DOCUMENT_SECONDS:
                break  # no committees yet, or no coordinator to tell
            message = pubsub.get_message(timeout=0.2)
            if message and inquiry.take(message["channel"].decode(), message["data"]):
                inquiry.ask(client)
                kept.write_bytes(encode(inquiry.document))
    return inquiry.seats(), inquiry.statuses


class _Inquiry:
    """One round of questions to all committees, and the answers believed so far."""

    def __init__(self, genesis: Genesis, document: SignedDocument | None) -> None:
        self.document = document
        self.statuses: dict[str, NodeStatus] = {}
        self.asked = time.monotonic()
        self._genesis = genesis
        self._client = secrets.token_hex(16)
        self._id = secrets.token_bytes(16)
        self.replies = replies_topic(genesis.network, self._client)

    def ask(self, client: "redis.Redis") -> None:
        self.asked = time.monotonic()
        query = encode(Query(self._id, self._client, -1, GetStatus()))
        for committee in self.document.document.committees if self.document else ():
            client.publish(queries_topic(self._genesis.network, committee.shard), query)

    def take(self, channel: str, body: bytes) -> bool:
        """Look at a message; True when it brought a newer epoch document, under which to ask again."""
        with suppress(DecodeError, InvalidDocument):
            if channel != self.replies:
                return self._announced(decode(Announcement, body, MAX_BROKER_BODY_BYTES).document)
            self._replied(decode(Reply, body, MAX_BROKER_BODY_BYTES))
        return False

    def _announced(self, document: SignedDocument | None) -> bool:
        if document is None or (self.document and document.document.number <= self.document.document.number):
            return False
        document.check(self._genesis)
        self.document = document
        return True

    def _replied(self, reply: Reply) -> None:
        if self.document is None or reply.id != self._id or not isinstance(reply.answer, NodeStatus):
            return
        electorate = self.document.document.electorates.get(reply.shard)
        if electorate and reply.is_valid(electorate):
            committee = next(c for c in self.document.document.committees if c.shard == reply.shard)
            self.statuses[committee.members[reply.member].name] = reply.answer

    def seats(self) -> dict[str, int]:
        """Shard by node name."""
        committees = self.document.document.committees if self.document else ()
        return {member.name: committee.shard for committee in committees for member in committee.members}

    def answered(self, expected: set[str]) -> bool:
        """Whether all who run and have a seat have answered."""
        return self.document is not None and expected & self.seats().keys() <= self.statuses.keys()


def _read_document(path: Path, genesis: Genesis) -> SignedDocument | None:
    with suppress(OSError, DecodeError, InvalidDocument):
        document = decode(SignedDocument, path.read_bytes(), MAX_BROKER_BODY_BYTES)
        document.check(genesis)
        return document
    return None
