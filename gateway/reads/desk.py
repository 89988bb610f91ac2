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
        self.lines = Lines(database, history, assets, epochs.table)
        self.balances = Balances(database, epochs)
        self.statements = Statements(database, assets, epochs)
