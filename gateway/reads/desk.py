"""The parts of reads, wired together."""

from gateway.database import Database
from gateway.epochs import StoredEpochs
from gateway.history import History
from gateway.reads.balances import Balances
from gateway.reads.lines import Lines
from gateway.reads.statement import Statements
from node.protocol.genesis import Asset


class Reads:
    """What can be looked back at."""

    def __init__(self, database: Database, history: History, assets: dict[str, Asset], epochs: StoredEpochs) -> None:
        self.lines = Lines(database, history, assets, lambda: epochs.document.shards if epochs.document is not None else None)
        self.balances = Balances(database, lambda: epochs.require().shards)
        self.statements = Statements(database, assets, lambda: epochs.require().shards)
