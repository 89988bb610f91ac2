"""``up --status``: which processes run, and what each node itself says of its shard, in an answer it signed.

Nodes are asked through the broker, under the latest epoch document that the coordinator announces; the document is kept, so
that nodes can be asked while the coordinator is away. Documents and answers are checked before they are believed.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis

from node.protocol.genesis import Genesis, read_genesis
from node.protocol.queries import GetStatus, NodeStatus
from scripts.devnet.client import Client, ClientError
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
    processes = {name: pids.get(name) for name in ("coordinator", *devnet.gateway_names, "dashboard")}
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
        *(process(name, pid, state["gateway"]) for name, pid in state["processes"].items() if name.startswith("gateway")),
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
    statuses: dict[str, NodeStatus] = {}
    with Client(broker, genesis, folder.run / "epoch-document") as client, suppress(ClientError):
        committees = client.document(DOCUMENT_SECONDS).committees
        electorates = client.epochs.electorates
        questions = [client.ask(electorates[committee.shard], GetStatus()) for committee in committees]

        def answered() -> bool:
            for committee, question in zip(committees, questions, strict=True):
                answers = question.answers.items()
                statuses.update({committee.members[i].name: a for i, a in answers if isinstance(a, NodeStatus)})
            return expected & client.epochs.seats.keys() <= statuses.keys()

        client.wait(answered, ANSWER_SECONDS)
    return {name: shard for name, (shard, _) in client.epochs.seats.items()}, statuses
