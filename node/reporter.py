"""What a node tells of itself: notable lines in its log and to the dashboard, figures once a second."""

import os
import resource
import time
from typing import TYPE_CHECKING, Any

import psutil
import structlog
import trio

from node.protocol.codec import encode
from node.protocol.genesis import Phase
from node.protocol.reports import Event
from node.protocol.topics import reports_topic

if TYPE_CHECKING:
    from node.runtime import Runtime

log = structlog.get_logger(__name__)

_INTERVAL = 1.0


class Reporter:
    """Reads the runtime, changes nothing."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._process = psutil.Process()
        self._channel = reports_topic(runtime.genesis.network)
        self._last: tuple[int, int] = (0, 0)

    async def run(self) -> None:
        """Publish the figures, every second."""
        while True:
            await trio.sleep(_INTERVAL)
            figures = self.figures()
            self._publish("stats", figures)
            self._runtime.metrics.update(figures)

    def notable(self, text: str) -> None:
        """A line in the log and in the dashboard's feed."""
        log.info(text)
        self._publish("notable", {"text": text})

    def name_of(self, public_key: bytes) -> str:
        """A node's name, or the start of its key."""
        document = self._runtime.membership.document
        for committee in document.committees if document is not None else ():
            for member in committee.members:
                if member.public_key == public_key:
                    return member.name
        return public_key.hex()[:12]

    def _publish(self, kind: str, data: dict[str, Any]) -> None:
        event = Event("node", self._runtime.settings.name, kind, time.time_ns() // 1_000_000, data)
        self._runtime.broker.publish(self._channel, encode(event))

    def figures(self) -> dict[str, Any]:
        """Counters since the start and gauges of now."""
        runtime = self._runtime
        usage = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures: dict[str, Any] = {
            "pid": os.getpid(),
            "epoch": 1,
            "phase": str(runtime.membership.phase),
            "peers": len(runtime.transport.connected),
            "bytes_in": runtime.transport.bytes_in,
            "bytes_out": runtime.transport.bytes_out,
            "cpu": usage.ru_utime + usage.ru_stime + children.ru_utime + children.ru_stime,
            "memory": self._process.memory_info().rss,
            "hash_rate": runtime.miner.hash_rate,
            "hashes": runtime.miner.hashes,
            "broker_connected": runtime.broker.connected,
            "broker_dropped": runtime.broker.dropped,
            "doing": self._doing(),
        }
        figures.update(self._replica_figures())
        return figures

    def _replica_figures(self) -> dict[str, Any]:
        replica = self._runtime.replica
        if replica is None:
            return {}
        counters, consensus, state = replica.counters, replica.consensus, replica.state
        proposals, latency = counters.proposals - self._last[0], counters.proposal_latency - self._last[1]
        self._last = (counters.proposals, counters.proposal_latency)
        return {
            "shard": replica.shard,
            "member": replica.member,
            "height": state.height,
            "view": consensus.view,
            "view_timeouts": consensus.view_timeouts,
            "leader": consensus.leader_of(consensus.view),
            "state_root": state.state_root.hex(),
            "mempool": len(replica.mempool),
            "mempool_dropped": replica.mempool.dropped,
            "pending_commits": state.totals().pending,
            "committed": counters.committed,
            "rejected": counters.rejected,
            "expired": counters.expired,
            "blocks": counters.blocks,
            "bundles_in": counters.bundles_in,
            "bundles_out": counters.bundles_out,
            "latency_ms": latency / proposals if proposals else 0,
            "catching_up": replica.catch_up.target > state.height + 8,
        }

    def _doing(self) -> str:
        runtime = self._runtime
        replica, membership = runtime.replica, runtime.membership
        if replica is None:
            if membership.signed is not None:
                return "waiting for its committee" if membership.seat else "standing by: no seat in this epoch"
            return "registering" if membership.phase is Phase.REGISTRATION else "waiting for the epoch document"
        height, view = replica.state.height, replica.consensus.view
        if replica.catch_up.target > height + 8:
            return f"catching up {height}/{replica.catch_up.target}"
        leader = replica.consensus.leader_of(view)
        if leader == replica.member:
            return f"mining block {height + 1} (view {view})"
        return f"waiting for {self.name_of(replica.electorate.keys[leader])}'s block (view {view})"
