"""Settings of each process: one TOML file each, read and checked on start. Secrets come from key files or the environment.

All nodes of a network share the rules in the genesis file (``node.protocol.genesis``); these files hold only what is a
process's own: where it listens, where it keeps its data, whom to call.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=0, le=65535)]
Name = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9._-]+\Z")]
S = TypeVar("S", bound=Struct)


class SettingsError(ValueError):
    """A settings file cannot be read or is wrong; the text says where."""


class NodeSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``python -m node --config FILE``"""

    name: Name
    genesis: str
    """Path of the genesis file."""
    key: str
    """Path of the node's private key (PEM); made on first start when absent."""
    data: str
    """Folder for the node's database; made when absent."""
    coordinator: str
    """Multiaddr of the signaling coordinator, e.g. /ip4/10.0.0.1/tcp/8020 (its key is in the genesis)."""
    broker: str
    """redis:// URL."""
    listen: str = "/ip4/0.0.0.0/tcp/8100"
    """Multiaddr to listen on for peers."""
    advertise: tuple[str, ...] = ()
    """Multiaddrs peers reach this node at; ``listen`` when empty."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 8300
    mining_workers: Annotated[int, Meta(ge=1, le=64)] = 1
    keep_blocks: Annotated[int, Meta(ge=0)] = 0
    """How many final blocks to keep at least; 0: all, as an archive does. None goes within the validity window, and none that a
    restart, or a member that is behind, needs; chains of earlier epochs go as a whole (docs/epochs.md, 6)."""


class CoordinatorSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``python -m signaling --config FILE``"""

    genesis: str
    key: str
    """Path of the coordinator's private key (PEM), the one named in the genesis."""
    data: str
    broker: str
    listen: str = "/ip4/0.0.0.0/tcp/8020"
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 8021
    registration_deadline: Annotated[int, Meta(ge=1)] = 60_000
    """Milliseconds after which registration closes with fewer nodes than hoped for, if they fill a committee; how long it is open
    in each attempt but the first."""
    answer_deadline: Annotated[int, Meta(ge=1)] = 30_000
    """Milliseconds that nodes have to tell their secrets, to accept the document, and to get ready; else the next attempt
    begins."""


class GatewaySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``python -m gateway --config FILE``; secrets in SHARDPAY_KEY_ENCRYPTION_KEY and SHARDPAY_TOKEN_SECRET (32 bytes, hex)."""

    genesis: str
    database: str
    """SQLAlchemy URL: sqlite:////var/lib/shardpay/gateway.db or postgresql://USER@HOST/NAME (password: PGPASSFILE)."""
    broker: str
    host: str = "127.0.0.1"
    port: Port = 8080
    reuse_port: bool = False
    """Whether other gateway processes listen on this port, too: the system spreads connections over them."""
    own_port: Port = 0
    """Another port, at which this process alone is reached: for its health and metrics. 0: none."""
    name: Name = "gateway"
    """Of this process: each on a database has its own."""
    devnet: bool = False
    """Allows the faucet and weak secrets."""
    issuer_keys: dict[str, str] = msgspec.field(default_factory=dict)
    """Asset code to the path of its issuer's private key (PEM): what this gateway may mint."""
    public_url: str = ""
    """Where browsers reach this gateway, e.g. https://wallet.example.org; links in mails begin so. By default host and port."""
    verification: Literal["", "optional", "required"] = ""
    """Whether an e-mail address must be verified before the first login. By default it must, but not on a devnet."""
    smtp: str = ""
    """Mail server: smtps://USER@HOST:465 (TLS) or smtp://USER@HOST:587 (STARTTLS); password in SHARDPAY_SMTP_PASSWORD.
    A devnet may go without, and shows its mails at /v1/devnet/mails."""
    mail_from: str = ""
    """E-mail address that mails come from."""
    attempts_per_address: Annotated[int, Meta(ge=1)] = 100
    """To log in, register and the like, a minute, from one client address (of IPv6, from one /64)."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of reverse proxies, whose X-Forwarded-For is believed: the client is the last in it that is none."""
    token_lifetime: Annotated[int, Meta(ge=60)] = 900
    """Seconds an access token is good for."""
    transaction_lifetime: Annotated[int, Meta(ge=1_000)] = 60_000
    """Milliseconds from signing to ``valid_until``."""
    webhook_allow_private: bool | None = None
    """Whether webhooks may go to loopback and private networks (127/8, 10/8, 172.16/12, 192.168/16, ::1, fc00::/7), at any port.
    As ``devnet`` by default."""
    purchase_limit: Annotated[int, Meta(ge=1)] = 5_000
    """What one purchase by card may bring at most, in whole units of its asset."""
    purchases_per_day: Annotated[int, Meta(ge=1)] = 10_000
    """What one user's purchases of an asset may bring in any 24 hours, in whole units."""
    faucet_per_day: Annotated[int, Meta(ge=1)] = 20_000_000
    """What the faucet gives one user of an asset in any 24 hours, in whole units."""
    shop: str = ""
    """Where an example shop is: linked from the wallet page."""


class DashboardSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``python -m demo --config FILE``"""

    genesis: str
    broker: str
    host: str = "127.0.0.1"
    port: Port = 8090
    gateway: str = "http://127.0.0.1:8080"
    """Where a person's browser reaches the gateway: linked from the page."""


class ShopSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``python -m demo.shop --config FILE``"""

    genesis: str
    """Of the network whose proofs it believes."""
    data: str
    """Folder for its account's secrets and its orders; made when absent."""
    gateway: str = "http://127.0.0.1:8080"
    host: str = "127.0.0.1"
    port: Port = 8070
    url: str = "http://127.0.0.1:8070"
    """Where browsers and the gateway's webhooks reach it."""


def read_settings(kind: type[S], path: Path) -> S:
    """Read a settings file.

    Raises:
        SettingsError: unreadable, not TOML, an unknown or missing name, or a value out of bounds.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None
