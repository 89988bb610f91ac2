"""What a replica counts."""

from msgspec import Struct

from node.ledger.execution import Execution
from node.protocol.block import Outcome


class Counters(Struct):
    """Totals since the start."""

    committed: int = 0
    rejected: int = 0
    expired: int = 0
    blocks: int = 0
    bundles_in: int = 0
    bundles_out: int = 0
    proposals: int = 0
    proposal_latency: int = 0
    """Sum over own proposals that became final, ms."""

    def count(self, execution: Execution, latency: int | None) -> None:
        """A block became final; ``latency``: ms since this member proposed it, if it did."""
        self.blocks += 1
        for receipt in execution.effects.receipts:
            if receipt.outcome is Outcome.COMMITTED:
                self.committed += 1
            elif receipt.outcome is Outcome.REJECTED:
                self.rejected += 1
            elif receipt.outcome is Outcome.EXPIRED:
                self.expired += 1
        if latency is not None:
            self.proposals += 1
            self.proposal_latency += latency
