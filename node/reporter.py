"""What a node tells of itself: notable lines in its log and to the dashboard, figures once a second."""

import time
from collections.abc import Sequence

import structlog

from node.membership import FIRST_EPOCH
from node.metrics import Metrics
from node.mining import Miner
from node.network.beat import next_beat
from node.network.broker import Broker
from node.network.transport import Transport
from node.node import Node
from node.process import this_process
from node.protocol.codec import encode
from node.protocol.genesis import Phase
from node.protocol.reports import Left, NodeFigures, Notable, ReplicaFigures, Report
from node.protocol.topics import reports_topic

log = structlog.get_logger(__name__)

_INTERVAL = 1.0


class Reporter:
    """Reads the node and its shell, changes nothing."""

    def __init__(
        self,
        name: str,
        network: bytes,
        node: Node,
        transport: Transport,
        lines: Sequence[Broker],
        miner: Miner,
        metrics: Metrics,
    ) -> None:
        """``lines``: to the broker; the first carries transactions and reports."""
        self._name, self._node, self._transport = name, node, transport
        self._lines, self._miner, self._metrics = lines, miner, metrics
        self._topic = reports_topic(network)
        self._last: tuple[int, int] = (0, 0)
        self._has_left = False

    async def run(self) -> None:
        """Publish the figures, every second."""
        while True:
            await next_beat(_INTERVAL)
            if self._has_left:
                return
            figures = self.figures()
            self._publish(figures)
            self._metrics.update(figures, self._lines[0].connected)

    def notable(self, text: str) -> None:
        """A line in the log and in the dashboard's feed."""
        log.info(text)
        self._publish(Notable(text))

    def left(self) -> None:
        """The last word."""
        self.notable("has left the network")
        self._has_left = True
        self._publish(Left())

    def name_of(self, public_key: bytes) -> str:
        """A node's name, or the start of its key."""
        document = self._node.document
        for committee in document.committees if document is not None else ():
            for member in committee.members:
                if member.public_key == public_key:
                    return member.name
        return public_key.hex()[:12]

    def _publish(self, content: NodeFigures | Notable | Left) -> None:
        report = Report(self._name, time.time_ns() // 1_000_000, content)
        self._lines[0].publish(self._topic, encode(report))

    def figures(self) -> NodeFigures:
        """As of now."""
        document = self._node.document
        return NodeFigures(
            process=this_process(self._doing()),
            epoch=document.number if document is not None else FIRST_EPOCH,
            phase=self._node.membership.phase,
            peers=len(self._transport.connected),
            bytes_in=self._transport.bytes_in,
            bytes_out=self._transport.bytes_out,
            hashes=self._miner.hashes,
            broker_dropped=sum(line.dropped for line in self._lines),
            replica=self._replica_figures(),
        )

    def _replica_figures(self) -> ReplicaFigures | None:
        replica = self._node.replica
        if replica is None:
            return None
        counters, consensus, state = replica.counters, replica.consensus, replica.state
        proposals, latency = counters.proposals - self._last[0], counters.proposal_latency - self._last[1]
        self._last = (counters.proposals, counters.proposal_latency)
        return ReplicaFigures(
            shard=replica.shard,
            height=state.height,
            state_root=state.state_root,
            catching_up=replica.taking_over.chosen is not None or replica.catching_up.target > state.height + 8,
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
        replica, membership = self._node.replica, self._node.membership
        if replica is None:
            if not membership.begun and membership.document is not None:
                return "waiting for its committee" if membership.seat else "standing by: no seat in this epoch"
            if membership.begun:
                return "bringing its ledger back" if self._node.electorate is not None else "standing by: no seat in this epoch"
            return "registering" if membership.phase is Phase.REGISTRATION else "waiting for the epoch document"
        height, view, taking_over = replica.state.height, replica.consensus.view, replica.taking_over
        if taking_over.chosen is not None:
            done, rows = taking_over.progress // 10, taking_over.rows
            return f"taking over the state of block {taking_over.chosen.header.height}: {done} %, {rows} rows"
        if replica.catching_up.target > height + 8:
            return f"catching up {height}/{replica.catching_up.target}"
        leader = replica.consensus.leader_of(view)
        if leader == replica.member:
            return f"mining block {height + 1} (view {view})"
        return f"waiting for {self.name_of(replica.electorate.keys[leader])}'s block (view {view})"
