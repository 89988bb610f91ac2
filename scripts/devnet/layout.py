"""Where everything of a network on this machine lives, and which port is whose. Pure: names and numbers, nothing is touched."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from config.settings import CoordinatorSettings, DashboardSettings, GatewaySettings, NodeSettings, ShopSettings
from node.protocol.limits import MAX_BROKER_BODY_BYTES

ROOT = Path(__file__).resolve().parent.parent.parent
"""The checkout: processes run from here."""

DEFAULT_PORT_BASE = 8000
MAX_NODES = 250
MAX_GATEWAYS = 9
MAX_PORT_BASE = 65_535 - 400 - MAX_NODES
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """Every port, counted from one number."""

    base: int = DEFAULT_PORT_BASE

    def __post_init__(self) -> None:
        if not 1024 <= self.base <= MAX_PORT_BASE:
            raise ValueError(f"ports are counted from a number between 1024 and {MAX_PORT_BASE}")

    @property
    def broker(self) -> int:
        return self.base + 10

    @property
    def coordinator(self) -> int:
        return self.base + 20

    @property
    def coordinator_metrics(self) -> int:
        return self.base + 21

    @property
    def shop(self) -> int:
        return self.base + 70

    @property
    def gateway(self) -> int:
        return self.base + 80

    def own_gateway(self, number: int) -> int:
        """Of one of several gateway processes, counted from 1, alone."""
        return self.base + 80 + number

    @property
    def dashboard(self) -> int:
        return self.base + 90

    def node(self, index: int) -> int:
        return self.base + 100 + index

    def node_metrics(self, index: int) -> int:
        return self.base + 400 + index


@dataclass(frozen=True)
class Folder:
    """The files of ``--data DIR``; ``data`` is absolute."""

    data: Path

    @property
    def genesis(self) -> Path:
        return self.data / "genesis.json"

    @property
    def state(self) -> Path:
        """What ``up`` was told when it made the folder; also the sign that the folder is ours."""
        return self.data / "devnet.json"

    @property
    def keys(self) -> Path:
        return self.data / "keys"

    @property
    def coordinator_key(self) -> Path:
        return self.keys / "coordinator.pem"

    def issuer_key(self, asset: str) -> Path:
        return self.keys / f"issuer-{asset}.pem"

    @property
    def gateway_secrets(self) -> Path:
        return self.keys / "gateway-secrets.json"

    @property
    def run(self) -> Path:
        return self.data / "run"

    def settings(self, process: str) -> Path:
        return self.data / "config" / f"{process}.toml"

    def log(self, process: str) -> Path:
        return self.data / "logs" / f"{process}.log"

    def home(self, process: str) -> Path:
        """A process's own folder."""
        return self.data / process


@dataclass(frozen=True)
class Program:
    """One process to keep running: what to execute, in which environment, and the ports it will listen on."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ports: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    cwd: Path = ROOT


def node_settings(
    folder: Folder,
    ports: Ports,
    index: int,
    name: str,
    *,
    genesis: Path,
    coordinator: str,
    broker: str,
    host: str,
    advertise: str,
    keep_blocks: int,
) -> NodeSettings:
    """Settings of the ``index``-th node of a folder. ``advertise``: the IP address peers reach it at."""
    port = ports.node(index)
    return NodeSettings(
        name=name,
        genesis=str(genesis),
        key=str(folder.home(name) / "key.pem"),
        data=str(folder.home(name)),
        coordinator=coordinator,
        broker=broker,
        listen=_multiaddr(host, port),
        advertise=(_multiaddr(advertise, port),),
        metrics_port=ports.node_metrics(index),
        keep_blocks=keep_blocks,
    )


def node_program(folder: Folder, ports: Ports, index: int, name: str, python: str) -> Program:
    argv = (python, "-m", "node", "--config", str(folder.settings(name)))
    return Program(name, argv, folder.log(name), (ports.node(index), ports.node_metrics(index)))


@dataclass(frozen=True)
class Devnet:
    """A whole network in one folder: what ``scripts/up`` runs."""

    folder: Folder
    ports: Ports
    nodes: int
    assets: tuple[str, ...]
    external_broker: str | None = None
    host: str = LOOPBACK
    """Address other machines reach this one at; on loopback nothing listens for them."""
    has_nodes: bool = True
    """False when the nodes run elsewhere, started by ``scripts/launch``."""
    has_shop: bool = False
    """Whether the example shop runs, too."""
    gateways: int = 1
    """Gateway processes, on one database and at one address."""
    keep_blocks: int = 0
    """As in ``NodeSettings``."""
    joined: int = 0
    """Nodes added since the network began."""
    gone: frozenset[int] = frozenset()
    """Numbers of nodes that have left it."""

    def __post_init__(self) -> None:
        if not 1 <= self.gateways <= MAX_GATEWAYS:
            raise ValueError(f"a network has 1 to {MAX_GATEWAYS} gateway processes here, not {self.gateways}")
        if not 1 <= self.nodes + self.joined <= MAX_NODES:
            raise ValueError(f"one machine runs 1 to {MAX_NODES} nodes here, not {self.nodes + self.joined}")

    @property
    def node_indexes(self) -> list[int]:
        """Of the nodes that run here. Each has its number for good."""
        numbers = range((self.nodes if self.has_nodes else 0) + self.joined)
        return [number for number in numbers if number not in self.gone]

    @property
    def node_names(self) -> list[str]:
        return [f"node-{index}" for index in self.node_indexes]

    @property
    def gateway_names(self) -> list[str]:
        return ["gateway", *(f"gateway-{number}" for number in range(2, self.gateways + 1))]

    @property
    def gateway_ports(self) -> list[int]:
        """Where each of them alone is reached."""
        several = self.gateways > 1
        return [self.ports.own_gateway(number) for number in range(1, self.gateways + 1)] if several else [self.ports.gateway]

    @property
    def bind(self) -> str:
        """Address to listen on."""
        return LOOPBACK if self.host == LOOPBACK else "0.0.0.0"

    @property
    def broker_url(self) -> str:
        return self.external_broker or f"redis://{LOOPBACK}:{self.ports.broker}/0"

    @property
    def gateway_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.gateway}"

    @property
    def dashboard_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.dashboard}"

    @property
    def shop_url(self) -> str:
        """Where a person's browser reaches the example shop; empty when there is none."""
        return f"http://{self.host}:{self.ports.shop}" if self.has_shop else ""

    @property
    def coordinator_address(self) -> str:
        return _multiaddr(LOOPBACK, self.ports.coordinator)

    def metrics_url(self, index: int) -> str:
        return f"http://{LOOPBACK}:{self.ports.node_metrics(index)}/metrics"

    def settings(self) -> dict[str, msgspec.Struct]:
        """The settings of each process, by its name."""
        folder, ports, genesis = self.folder, self.ports, str(self.folder.genesis)
        result: dict[str, msgspec.Struct] = {
            "coordinator": CoordinatorSettings(
                genesis=genesis,
                key=str(folder.coordinator_key),
                data=str(folder.home("coordinator")),
                broker=self.broker_url,
                listen=_multiaddr(self.bind, ports.coordinator),
                metrics_port=ports.coordinator_metrics,
            ),
            **{name: self._gateway(name, port) for name, port in zip(self.gateway_names, self.gateway_ports, strict=True)},
            "dashboard": DashboardSettings(
                genesis=genesis,
                broker=self.broker_url,
                host=self.bind,
                port=ports.dashboard,
                gateway=f"http://{self.host}:{ports.gateway}",
            ),
        }
        if self.has_shop:
            result["shop"] = ShopSettings(
                genesis=genesis,
                data=str(folder.home("shop")),
                gateway=f"http://{self.host}:{ports.gateway}",
                host=self.bind,
                port=ports.shop,
                url=self.shop_url,
            )
        for index, name in zip(self.node_indexes, self.node_names, strict=True):
            result[name] = node_settings(
                folder,
                ports,
                index,
                name,
                genesis=folder.genesis,
                coordinator=self.coordinator_address,
                broker=self.broker_url,
                host=LOOPBACK,
                advertise=LOOPBACK,
                keep_blocks=self.keep_blocks,
            )
        return result

    def _gateway(self, name: str, own_port: int) -> GatewaySettings:
        folder, port = self.folder, self.ports.gateway
        return GatewaySettings(
            genesis=str(folder.genesis),
            database=f"sqlite:///{folder.home('gateway') / 'gateway.db'}",
            broker=self.broker_url,
            host=self.bind,
            port=port,
            reuse_port=self.gateways > 1,
            own_port=0 if own_port == port else own_port,
            name=name,
            devnet=True,
            attempts_per_address=10_000,  # all programs of a development network share one
            issuer_keys={asset: str(folder.issuer_key(asset)) for asset in self.assets},
            shop=self.shop_url,
        )

    def programs(self, python: str, broker_binary: Path, gateway_secrets: dict[str, str]) -> list[Program]:
        """The process table, in starting order."""
        folder, ports = self.folder, self.ports

        def module(name: str, package: str, *listens: int, **environment: str) -> Program:
            argv = (python, "-m", package, "--config", str(folder.settings(name)))
            return Program(name, argv, folder.log(name), listens, tuple(environment.items()))

        broker = Program(
            "broker",
            broker_arguments(broker_binary, ports.broker, self.bind),
            folder.log("broker"),
            (ports.broker,),
            (),
            folder.run,
        )
        return [
            *([] if self.external_broker else [broker]),
            module("coordinator", "signaling", ports.coordinator, ports.coordinator_metrics),
            *(node_program(folder, ports, index, f"node-{index}", python) for index in self.node_indexes),
            *(
                module(name, "gateway", port, **gateway_secrets)
                for name, port in zip(self.gateway_names, self.gateway_ports, strict=True)
            ),
            module("dashboard", "demo", ports.dashboard),
            *([module("shop", "demo.shop", ports.shop)] if self.has_shop else []),
        ]


def broker_arguments(binary: Path, port: int, bind: str = LOOPBACK) -> tuple[str, ...]:
    """A broker that keeps nothing on disk, takes in no larger message than any process publishes, and cuts off a subscriber that
    does not keep up. Whoever can reach it may publish: nothing it carries is believed unsigned, but who floods it costs others
    what they publish meanwhile. So it belongs in a private network.

    It must not rename itself: that overwrites its environment, by which ``processes`` finds it.
    """
    largest = str(MAX_BROKER_BODY_BYTES)
    limits = ("--client-output-buffer-limit", "pubsub", "64mb", "32mb", "5", "--proto-max-bulk-len", largest)
    memory = ("--client-query-buffer-limit", "64mb", "--maxmemory-clients", "1gb", "--maxmemory", "64mb")
    alone = ("--save", "", "--appendonly", "no", "--set-proc-title", "no")
    access = ("--protected-mode", "yes" if bind == LOOPBACK else "no")
    return (str(binary), "--bind", bind, *access, "--port", str(port), *alone, *limits, *memory)


def _multiaddr(host: str, port: int) -> str:
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"
