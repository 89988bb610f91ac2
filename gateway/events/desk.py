"""The parts of events, wired together."""

from gateway.database import Database
from gateway.events.deliveries import Deliveries
from gateway.events.fanout import FanOut
from gateway.events.outbox import Outbox
from gateway.events.posting import Poster
from gateway.events.shown import Shower
from gateway.events.stream import Streams
from gateway.events.targets import Targets
from gateway.events.webhooks import Webhooks
from gateway.vault import Vault


class Events:
    """How users hear of what is in the outbox."""

    def __init__(self, database: Database, outbox: Outbox, shower: Shower, vault: Vault, targets: Targets, devnet: bool) -> None:
        self.streams = Streams(database, outbox, shower)
        self.webhooks = Webhooks(database, vault, targets)
        self.deliveries = Deliveries(database, shower, Poster(targets), self.webhooks.secrets, devnet)
        self.fanout = FanOut(database, outbox, self.deliveries.wake)
