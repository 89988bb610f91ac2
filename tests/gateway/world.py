"""A broker, a small network and a gateway before it."""

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path

from node.protocol.genesis import write_genesis
from node.protocol.keys import write_key_file
from tests.gateway.fake_network import USD_ISSUER, FakeNetwork
from tests.person import Deal, Person, deal
from tests.processes import BrokerProcess, ProgramProcess, free_port

STRICT_ATTEMPTS = 150
"""A minute, from one address, at the shared gateway that is strict."""
SECRETS = ("SHARDPAY_KEY_ENCRYPTION_KEY", "SHARDPAY_TOKEN_SECRET")


class World:
    """Broker and network run from the beginning; the gateway, with a database in ``folder``, when it is started."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        terms: Mapping[str, tuple[int, int]] | None = None,
        standby: int = 0,
    ) -> None:
        """``settings``: of the gateway, where they differ. ``terms``: (fee, smallest balance) by asset. ``standby``: nodes
        without a seat in the first epoch."""
        self.folder = folder
        self.broker = BrokerProcess()
        self.broker.start()
        self.network = FakeNetwork(self.broker.url, terms or {}, standby)
        self.network.start()
        self.gateway = self.gateway_in(folder, settings or {})

    def gateway_in(self, folder: Path, settings: Mapping[str, object]) -> ProgramProcess:
        """One with a folder, a port and secrets of its own, not started."""
        write_genesis(folder / "genesis.json", self.network.genesis)
        write_key_file(folder / "usd.pem", USD_ISSUER)
        port = free_port()
        files = {"genesis": f"{folder}/genesis.json", "database": f"sqlite:///{folder}/gateway.db", "broker": self.broker.url}
        values = {**files, "port": port, "devnet": True, "attempts_per_address": 10_000, **settings}
        if values["port"] != port:  # another's, which is shared
            values["own_port"] = port
        lines = [f"{k} = {str(v).lower() if isinstance(v, bool | int) else repr(v)}" for k, v in values.items()]
        text = "\n".join([*lines, "[issuer_keys]", f"USD = '{folder}/usd.pem'", ""])
        environment = os.environ | {name: secrets.token_hex(32) for name in SECRETS}
        return ProgramProcess("gateway", folder, text, port, environment)

    def another(self, name: str, **settings: object) -> ProgramProcess:
        """One more process of the gateway, on its database, not started."""
        folder, first = self.folder / name, self.gateway
        folder.mkdir()
        shared = tomllib.loads(first.config.read_text())
        del shared["port"], shared["issuer_keys"]
        made = self.gateway_in(folder, {**shared, "name": name, **settings})
        made.environment = first.environment
        return made

    def start_gateway(self, ready: str = "/readyz") -> None:
        self.gateway.start(ready)

    def person(self) -> Person:
        return Person(self.gateway.url)

    def deal(self, home: int = 0, other: int = 0, amount: str = "10.00") -> Deal:
        return deal(self.person, home, other, amount)

    def close(self) -> None:
        self.gateway.kill()
        self.network.stop()
        self.broker.kill()
