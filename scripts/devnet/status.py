"""``up --status``: which processes run, the epoch and its committees, and what each node itself says of its shard, in an answer
it signed.

Nodes are asked through the broker, under the document in force, which follows from the first one that the coordinator announces.
What is known is kept, so that nodes can be asked while the coordinator is away. Everything is checked before it is believed.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import redis

from node.protocol.epoch import EpochDocument, PhaseNotice
from node.protocol.genesis import Genesis, Phase, read_genesis
from node.protocol.queries import GetStatus, NodeStatus
from scripts.devnet.client import Client, ClientError
from scripts.devnet.layout import Devnet, Folder
from scripts.devnet.processes import programs_running, supervisor

ANSWER_SECONDS = 1.5
DOCUMENT_SECONDS = 3.0


class Heard(NamedTuple):
    """Shards and verified statuses by node name; the document in force and the coordinator's last word, if they are known."""

    seats: dict[str, int]
    statuses: dict[str, NodeStatus]
    document: EpochDocument | None
    notice: PhaseNotice | None


def status(devnet: Devnet) -> dict[str, Any]:
    """All there is to say, as plain JSON values. What is down has ``pid`` null, ``running`` false."""
    folder = devnet.folder
    pids = {name: child.pid for name, child in programs_running(folder).items()}
    heard = hear_nodes(folder, devnet.broker_url, read_genesis(folder.genesis), set(pids) & set(devnet.node_names))
    seats, answers = heard.seats, heard.statuses
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
        for index, name in zip(devnet.node_indexes, devnet.node_names, strict=True)
    ]
    processes = {name: pids.get(name) for name in ("coordinator", *devnet.gateway_names, "dashboard")}
    down = [name for name in (*processes, *devnet.node_names) if name not in pids]
    return {
        **epoch_of(heard),
        "waiting_for": [*([] if broker_up else ["broker"]), *down, *silent(heard, set(pids))],
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


def epoch_of(heard: Heard) -> dict[str, Any]:
    """The epoch in force, with ranges of addresses in hex; null what is not known. The phase is ``mining``, or what the
    coordinator says of the next epoch while that forms. A committee is ready when a quorum of it answers; its height is what so
    many have reached."""
    document, notice = heard.document, heard.notice
    committees = []
    for committee in document.committees if document is not None else ():
        assert document is not None
        first, last = document.shards.range_of(committee.shard)
        names = [member.name for member in committee.members]
        heights = sorted((heard.statuses[name].height for name in names if name in heard.statuses), reverse=True)
        quorum = document.electorates[committee.shard].quorum
        is_ready = len(heights) >= quorum
        committees.append(
            {
                "shard": committee.shard,
                "first": first.hex(),
                "last": last.hex(),
                "members": names,
                "height": heights[quorum - 1] if is_ready else None,
                "ready": is_ready,
            }
        )
    return {
        "epoch": document.number if document is not None else notice.epoch if notice is not None else None,
        "attempt": document.attempt if document is not None else notice.attempt if notice is not None else None,
        "phase": _phase(document, notice),
        "document": document.hash.hex() if document is not None else None,
        "committees": committees,
    }


def _phase(document: EpochDocument | None, notice: PhaseNotice | None) -> str | None:
    if notice is not None and (document is None or notice.epoch == document.number + 1):
        return notice.phase.value
    return Phase.MINING.value if document is not None else None


def silent(heard: Heard, running: set[str]) -> list[str]:
    """What is running, and still waited for, in words."""
    if heard.document is None:
        known = "" if heard.notice is None else f": {heard.notice.phase}, {heard.notice.registered} nodes registered"
        return [f"the first epoch{known}"]
    return [f"an answer of {name}" for name in sorted((running & heard.seats.keys()) - heard.statuses.keys())]


def status_table(state: Mapping[str, Any]) -> str:
    """The same for people."""

    def process(name: str, pid: int | None, text: str) -> str:
        return f"{name:<14} {f'process {pid}' if pid else 'DOWN':<16} {text}"

    broker = state["broker"]
    shards = [f"shard {committee['shard']} {len(committee['members'])} nodes" for committee in state["committees"]]
    lines = [
        *([f"epoch {state['epoch']}, attempt {state['attempt']}: {state['phase']}; {', '.join(shards)}"] if shards else []),
        process("broker", broker["pid"], broker["url"])
        if broker["pid"] or not broker["running"]
        else f"{'broker':<14} {'(not ours)':<16} {broker['url']}",
        process("coordinator", state["coordinator"]["pid"], state["coordinator"]["address"]),
        *(process(name, pid, state["gateway"]) for name, pid in state["processes"].items() if name.startswith("gateway")),
        process("dashboard", state["processes"]["dashboard"], state["dashboard"]),
    ]
    for node in state["nodes"]:
        shard = "no seat" if node["shard"] is None else f"shard {node['shard']}"
        height = f"height {node['height']}, state {node['state_root'][:16]}" if node["height"] is not None else "does not answer"
        height = "" if node["shard"] is None else height
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
    return hear_nodes(folder, broker, genesis, expected)[:2]


def hear_nodes(folder: Folder, broker: str, genesis: Genesis, expected: set[str]) -> Heard:
    """The same, and of the epoch."""
    statuses: dict[str, NodeStatus] = {}
    document, seats = None, dict[str, int]()
    with Client(broker, genesis, folder.run / "epochs") as client, suppress(ClientError):
        document = client.document(DOCUMENT_SECONDS)  # another may come to be in force meanwhile
        seats = {member.name: committee.shard for committee in document.committees for member in committee.members}
        questions = [client.ask(electorate, GetStatus()) for electorate in document.electorates.values()]

        def answered() -> bool:
            for committee, question in zip(document.committees, questions, strict=True):
                answers = question.answers.items()
                statuses.update({committee.members[i].name: a for i, a in answers if isinstance(a, NodeStatus)})
            return expected & seats.keys() <= statuses.keys()

        client.wait(answered, ANSWER_SECONDS)
    return Heard(seats, statuses, document, client.epochs.notice)
