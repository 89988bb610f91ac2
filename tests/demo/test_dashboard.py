"""The dashboard as a process: fed over a real broker, read over HTTP."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from demo.__main__ import main
from demo.api import WEB
from demo.stream import MAX_STREAMS
from node.protocol.block import Outcome
from node.protocol.codec import encode
from node.protocol.genesis import write_genesis
from node.protocol.topics import blocks_topic, epoch_topic, reports_topic
from tests.chains import Network
from tests.demo.messages import block, gateway, node, notable
from tests.gateway.harness import BrokerProcess, free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]


def now() -> int:
    return int(time.time() * 1000)


class Dashboard:
    """The process, and the voice of a made-up network."""

    def __init__(self, folder: Path, broker: BrokerProcess) -> None:
        self.network = Network(time=now())
        self.broker = redis.Redis.from_url(broker.url)
        write_genesis(folder / "genesis.json", self.network.genesis)
        self.port = free_port()
        config = folder / "dashboard.toml"
        config.write_text(f'genesis = "{folder}/genesis.json"\nbroker = "{broker.url}"\nport = {self.port}\n')
        command = [sys.executable, "-m", "demo", "--config", str(config)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}"
        until(lambda: self.hears("connected"), "dashboard up", 60)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def hears(self, state: str) -> bool:
        try:
            return bool(self.get("/healthz").json() == {"status": "ok", "broker": state})
        except httpx.TransportError:
            return False

    def say(self, body: bytes, topic: str = "") -> None:
        self.broker.publish(topic or reports_topic(self.network.genesis.network), body)

    def snapshot(self) -> dict[str, Any]:
        picture: dict[str, Any] = self.get("/api/snapshot").json()
        return picture

    def shows(self, name: str, **values: object) -> bool:
        """Whether it lists the process, with these values."""
        return any(s["name"] == name and values.items() <= s.items() for s in self.snapshot()["sources"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.broker.close()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """In epoch 1."""
    broker = BrokerProcess()
    broker.start()
    try:
        dashboard = Dashboard(tmp_path_factory.mktemp("dashboard"), broker)
        dashboard.say(encode(dashboard.network.announcement()), epoch_topic(dashboard.network.genesis.network))
        yield dashboard
        dashboard.stop()
    finally:
        broker.kill()


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, data) of each server-sent event."""
    lines = (line.partition(": ") for line in response.iter_lines())
    told = (value for name, _, value in lines if name in ("event", "data"))
    return ((kind, json.loads(data)) for kind, data in zip(told, told, strict=True))


def test_what_the_broker_carries_is_in_the_snapshot(dashboard: Dashboard) -> None:
    network, hostile = dashboard.network, "<img src=x onerror=alert(1)><script>"
    for height in (41, 42):
        dashboard.say(block(network, 0, height, {height: Outcome.COMMITTED}), blocks_topic(network.genesis.network, 0))
    dashboard.say(node("node-1", now(), doing=hostile, height=42))
    dashboard.say(gateway("gateway", now(), transfers=3))
    dashboard.say(notable("node-1", now(), "caught up"))
    until(lambda: dashboard.snapshot()["feed"][-1]["text"] == "caught up", "the line in the feed")
    picture = dashboard.snapshot()
    assert (picture["network"]["name"], picture["epoch"], picture["phase"]) == ("test", 1, "mining")
    assert (picture["committees"][0]["height"], picture["finalized"]["intra"]) == (42, 2)
    assert picture["activity"]["transfers"][0] == 3
    assert dashboard.shows("node-1", role="node", state="up", doing=hostile, height=42)
    assert dashboard.shows("dashboard", role="dashboard", pid=dashboard.process.pid)


def test_the_stream_begins_with_everything_and_goes_on_once_a_second(dashboard: Dashboard) -> None:
    with httpx.stream("GET", f"{dashboard.url}/api/stream", timeout=5) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response)
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

    until(accepted, "room for a page")


def test_hostile_messages_leave_it_running(dashboard: Dashboard) -> None:
    network = dashboard.network.genesis.network
    ignored = dashboard.snapshot()["broker"]["ignored"]
    for topic in (reports_topic(network), epoch_topic(network), blocks_topic(network, 1)):
        for junk in (b"", b"\xc1", os.urandom(500), b"\x91" * 5_000, encode([[]])):
            dashboard.say(junk, topic)
    until(lambda: dashboard.snapshot()["broker"]["ignored"] >= ignored + 15, "all of it counted")


def test_it_survives_the_loss_of_the_broker_and_ends_in_time_with_a_page_open(tmp_path: Path) -> None:
    broker = BrokerProcess()
    broker.start()
    try:
        dashboard = Dashboard(tmp_path, broker)
        dashboard.say(node("node-1", now()))
        until(lambda: dashboard.shows("node-1", state="up"), "the node")
        broker.kill()
        until(lambda: dashboard.hears("lost") and dashboard.shows("node-1", state="unknown"), "the loss")
        broker.start()
        until(lambda: dashboard.hears("connected"), "the broker again")
        dashboard.say(node("node-1", now(), height=5))
        until(lambda: dashboard.shows("node-1", state="up", height=5), "the node again")
        with httpx.stream("GET", f"{dashboard.url}/api/stream", timeout=5) as page:
            next(page.iter_lines())
            assert dashboard.stop() == 0
    finally:
        broker.kill()


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
def test_bad_settings_are_refused_in_one_line(
    tmp_path: Path, settings: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_genesis(tmp_path / "genesis.json", Network().genesis)
    config = tmp_path / "dashboard.toml"
    monkeypatch.setattr(sys, "argv", ["demo", "--config", str(config)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config.write_text(settings.format(folder=tmp_path, taken=taken.getsockname()[1]))
        assert main() == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert says in told


# -- the page -------------------------------------------------------------------------------------------------------------


def test_the_page_and_its_files_are_served_with_a_strict_policy(dashboard: Dashboard) -> None:
    page = dashboard.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for reference in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert dashboard.get(reference).status_code == 200
    for path in ("/", "/static/main.js", "/api/snapshot", "/healthz", "/nothing"):
        headers = dashboard.get(path).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", sorted(path for path in WEB.iterdir() if path.is_file()), ids=lambda path: path.name)
def test_an_asset_loads_nothing_from_elsewhere_and_turns_no_data_into_markup_or_code(path: Path) -> None:
    text = path.read_text()
    urls = set(re.findall(r"(?:https?:)?//[a-z0-9][^\s\"'`)]*", text, re.IGNORECASE))
    assert urls <= {"http://www.w3.org/2000/svg"}  # a name, not a place
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc", "eval(", "Function("):
        assert word not in text
    assert not re.search(r"<[^>]+\son\w+=|<style|style=|<script(?![^>]*\ssrc=)", text)
    assert all((WEB / module).exists() for module in re.findall(r'from "\./([^"]+)"', text))
