"""The dashboard as a process: fed over a real broker, read over HTTP."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from demo.__main__ import main
from demo.api import WEB
from demo.stream import MAX_STREAMS
from node.protocol.block import Outcome
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.genesis import write_genesis
from node.protocol.topics import blocks_topic, epoch_topic, reports_topic
from tests.chains import Network
from tests.demo.messages import block, gateway, node, notable
from tests.processes import BrokerProcess, ProgramProcess, free_port
from tests.waiting import until


def now() -> int:
    return int(time.time() * 1000)


class Dashboard(ProgramProcess):
    """The process, and the voice of a made-up network."""

    def __init__(self, folder: Path, broker: BrokerProcess) -> None:
        self.network, self.broker, self.port = Network(time=now()), broker, free_port()
        write_genesis(folder / "genesis.json", self.network.genesis)
        settings = f'genesis = "{folder}/genesis.json"\nbroker = "{broker.url}"\nport = {self.port}\n'
        super().__init__("demo", folder, settings, self.port)

    def hears(self, state: str) -> bool:
        return bool(self.http.get("/healthz").json() == {"status": "ok", "broker": state})

    def say(self, body: bytes, topic: str = "") -> None:
        self.broker.client.publish(topic or reports_topic(self.network.genesis.network), body)

    def snapshot(self) -> dict[str, Any]:
        picture: dict[str, Any] = self.http.get("/api/snapshot").json()
        return picture

    def shows(self, name: str, **values: object) -> bool:
        """Whether it lists the process, with these values."""
        return any(s["name"] == name and values.items() <= s.items() for s in self.snapshot()["sources"])


@contextmanager
def running_dashboard(folder: Path) -> Iterator[Dashboard]:
    """With a broker."""
    broker = BrokerProcess()
    dashboard = Dashboard(folder, broker)
    try:
        broker.start()
        dashboard.start_until(lambda: dashboard.hears("connected"))
        yield dashboard
    finally:
        dashboard.kill()
        broker.kill()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """In epoch 1."""
    with running_dashboard(tmp_path_factory.mktemp("dashboard")) as dashboard:
        dashboard.say(encode(dashboard.network.announcement()), epoch_topic(dashboard.network.genesis.network))
        yield dashboard


def events(lines_sent: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, data) of each server-sent event."""
    lines = (line.partition(": ") for line in lines_sent)
    told = (value for name, _, value in lines if name in ("event", "data"))
    return ((kind, json.loads(data)) for kind, data in zip(told, told, strict=True))


def test_what_the_broker_carries_is_in_the_snapshot(dashboard: Dashboard) -> None:
    network, hostile = dashboard.network, "<img src=x onerror=alert(1)><script>"
    for height in (41, 42):
        dashboard.say(block(network, 0, height, {height: Outcome.COMMITTED}), blocks_topic(network.genesis.network, Chain(1, 0)))
    dashboard.say(node("node-1", now(), doing=hostile, height=42))
    dashboard.say(gateway("gateway", now(), transfers=3))
    dashboard.say(notable("node-1", now(), "caught up"))
    until(lambda: dashboard.snapshot()["feed"][-1]["text"] == "caught up", "the line in the feed")
    picture = dashboard.snapshot()
    assert (picture["network"]["name"], picture["epoch"], picture["phase"]) == ("test", 1, "mining")
    assert (picture["committees"][0]["height"], picture["finalized"]["intra"]) == (42, 2)
    assert picture["activity"]["transfers"][0] == 3
    assert dashboard.shows("node-1", role="node", state="up", doing=hostile, height=42)
    until(lambda: dashboard.shows("dashboard", role="dashboard", pid=dashboard.pid), "its own report, once a second")


def test_the_stream_begins_with_everything_and_goes_on_once_a_second(dashboard: Dashboard) -> None:
    with dashboard.http.stream("GET", "/api/stream", timeout=5) as response:
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
        refused = dashboard.http.get("/api/stream")
        assert (refused.status_code, refused.json()["code"]) == (503, "limit_exceeded")

    def accepted() -> bool:
        with dashboard.http.stream("GET", "/api/stream") as response:
            return response.status_code == 200

    until(accepted, "room for a page")


def test_hostile_messages_leave_it_running(dashboard: Dashboard) -> None:
    network = dashboard.network.genesis.network
    ignored = dashboard.snapshot()["broker"]["ignored"]
    for topic in (reports_topic(network), epoch_topic(network), blocks_topic(network, Chain(1, 1))):
        for junk in (b"", b"\xc1", os.urandom(500), b"\x91" * 5_000, encode([[]])):
            dashboard.say(junk, topic)
    until(lambda: dashboard.snapshot()["broker"]["ignored"] >= ignored + 15, "all of it counted")


def test_it_survives_the_loss_of_the_broker_and_ends_in_time_with_a_page_open(tmp_path: Path) -> None:
    with running_dashboard(tmp_path) as dashboard:
        dashboard.say(node("node-1", now()))
        until(lambda: dashboard.shows("node-1", state="up"), "the node")
        dashboard.broker.kill()
        until(lambda: dashboard.hears("lost") and dashboard.shows("node-1", state="unknown"), "the loss")
        dashboard.broker.start()
        until(lambda: dashboard.hears("connected"), "the broker again")
        dashboard.say(node("node-1", now(), height=5))
        until(lambda: dashboard.shows("node-1", state="up", height=5), "the node again")
        with dashboard.http.stream("GET", "/api/stream", timeout=5) as page:
            next(page.iter_lines())
            assert dashboard.stop() == 0


GOOD = {"genesis": '"{folder}/genesis.json"', "broker": '"redis://127.0.0.1:1/0"', "port": "1"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"genesis": ""}, "genesis"),
        ({"genesis": '"{folder}/none.json"'}, "none.json"),
        ({"broker": '"ftp://127.0.0.1"'}, "redis://"),
        ({"port": "{taken}"}, "in use"),
        ({"prot": "1"}, "prot"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    tmp_path: Path, wrong: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_genesis(tmp_path / "genesis.json", Network().genesis)
    config = tmp_path / "dashboard.toml"
    monkeypatch.setattr(sys, "argv", ["demo", "--config", str(config)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lines = [f"{name} = {value}" for name, value in (GOOD | wrong).items() if value]
        config.write_text("\n".join(lines).format(folder=tmp_path, taken=taken.getsockname()[1]))
        assert main() == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert says in told


# -- the page -------------------------------------------------------------------------------------------------------------


def test_the_page_and_its_files_are_served_with_a_strict_policy(dashboard: Dashboard) -> None:
    page = dashboard.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for reference in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert dashboard.http.get(reference).status_code == 200
    for path in ("/", "/static/main.js", "/api/snapshot", "/healthz", "/nothing"):
        headers = dashboard.http.get(path).headers
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
