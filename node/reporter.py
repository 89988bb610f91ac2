"""What a node tells of itself: notable lines in its log and to the dashboard, figures once a second."""

import time
from typing import TYPE_CHECKING

import structlog
import trio

from node.process import this_process
from node.protocol.codec import encode
from node.protocol.genesis import Phase
from node.protocol.reports import NodeFigures, Notable, ReplicaFigures, Report
from node.protocol.topics import reports_topic
from node.registration import FIRST_EPOCH

if TYPE_CHECKING:
    from node.runtime import Runtime

log = structlog.get_logger(__name__)

_INTERVAL = 1.0


class Reporter:
    """Reads the runtime, changes nothing."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._channel = reports_topic(runtime.genesis.network)
        self._last: tuple[int, int] = (0, 0)

    async def run(self) -> None:
        """Publish the figures, every second."""
        while True:
            await trio.sleep(_INTERVAL)
            figures = self.figures()
            self._publish(figures)
            self._runtime.metrics.update(figures, self._runtime.broker.connected)

    def notable(self, text: str) -> None:
        """A line in the log and in the dashboard's feed."""
        log.info(text)
        self._publish(Notable(text))

    def name_of(self, public_key: bytes) -> str:
        """A node's name, or the start of its key."""
        document = self._runtime.membership.document
        for committee in document.committees if document is not None else ():
            for member in committee.members:
                if member.public_key == public_key:
                    return member.name
        return public_key.hex()[:12]

    def _publish(self, content: NodeFigures | Notable) -> None:
        report = Report(self._runtime.settings.name, time.time_ns() // 1_000_000, content)
        self._runtime.broker.publish(self._channel, encode(report))

    def figures(self) -> NodeFigures:
        """As of now."""
        runtime = self._runtime
        document = runtime.membership.document
        return NodeFigures(
            process=this_process(self._doing()),
            epoch=document.number if document is not None else FIRST_EPOCH,
            phase=runtime.membership.phase,
            peers=len(runtime.transport.connected),
            bytes_in=runtime.transport.bytes_in,
            bytes_out=runtime.transport.bytes_out,
            hashes=runtime.miner.hashes,
            broker_dropped=runtime.broker.dropped,
            replica=self._replica_figures(),
        )

    def _replica_figures(self) -> ReplicaFigures | None:
        replica = self._runtime.replica
        if replica is None:
            return None
        counters, consensus, state = replica.counters, replica.consensus, replica.state
        proposals, latency = counters.proposals - self._last[0], counters.proposal_latency - self._last[1]
        self._last = (counters.proposals, counters.proposal_latency)
        return ReplicaFigures(
            shard=replica.shard,
            height=state.height,
            state_root=state.state_root,
            catching_up=replica.catch_up.target > state.height + 8,
            view=consensus.view,
            leader=consensus.leader_of(consensus.view),
            view_timeouts=consensus.view_timeouts,
            latency_us=1000 * latency // proposals if proposals else None,
            mempool=len(replica.mempool),
            mempool_dropped=replica.mempool.dropped,
            pending_commits=state.totals().pending,
            committed=counters.committed,
            rejected=counters.rejected,
            expired=counters.expired,
            bundles_in=counters.bundles_in,
            bundles_out=counters.bundles_out,
        )

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
