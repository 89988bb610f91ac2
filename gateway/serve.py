"""The gateway as a program that serves: from its settings to HTTP."""

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import structlog
import uvicorn
from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from config.logs import configure
from config.settings import GatewaySettings, SettingsError, read_settings
from gateway.app import create_app
from gateway.database import open_engine
from gateway.events.targets import Targets
from gateway.identity.mailer import SmtpMailer
from gateway.identity.throttle import Counts, Limit, SharedCounts, Throttle
from gateway.money.limits import Limits
from gateway.rotation import check_key
from gateway.server import IDLE_SECONDS, Connection, Places, Server
from gateway.service import Gateway
from gateway.vault import KEY_ENCRYPTION_KEY, TOKEN_SECRET, SecretError, Vault, read_secrets
from node.client.line import Line
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.keys import read_key_file


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Exit code 2: wrong settings; 1: failed while running."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="The wallet gateway: accounts and payments over HTTP.")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="settings (TOML), see config/settings.py")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(GatewaySettings, options.config)
        return _serve(settings)
    except (SettingsError, SecretError, SQLAlchemyError, CommandError, OSError, ValueError, ImportError) as error:
        print(f"gateway: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2


def _serve(settings: GatewaySettings) -> int:
    genesis = read_genesis(Path(settings.genesis))
    vault = Vault(*read_secrets(KEY_ENCRYPTION_KEY, settings.devnet))
    token_secret, *former_secrets = read_secrets(TOKEN_SECRET, settings.devnet)
    issuers = _read_issuers(settings, genesis)
    targets = _targets(settings)
    line = Line(settings.broker)
    mailer, must_verify = _mailing(settings)
    proxies = [ip_network(proxy) for proxy in settings.trusted_proxies]
    engine = open_engine(settings.database)
    check_key(engine, vault)
    configure("gateway", settings.name)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each request that cannot be read
    log = structlog.get_logger()
    crashed, url = False, f"http://{settings.host}:{settings.port}"
    running: tuple[Gateway, asyncio.AbstractEventLoop] | None = None

    def make_gateway() -> Gateway:
        lifetimes = (settings.token_lifetime, settings.transaction_lifetime)
        nonlocal running
        parts = (settings.name, genesis, engine, line, vault, token_secret, issuers)
        gateway = Gateway(
            *parts,
            *lifetimes,
            settings.devnet,
            limits=Limits(settings.purchase_limit, settings.purchases_per_day, settings.faucet_per_day),
            public_url=settings.public_url or url,
            mailer=mailer,
            must_verify=must_verify,
            throttle=Throttle(Counts(), SharedCounts(settings.broker, genesis.network, token_secret)),
            from_client=Limit("client", settings.attempts_per_address, 60.0),
            targets=targets,
        )
        gateway.identity.tokens.former = tuple(former_secrets)
        running = (gateway, asyncio.get_running_loop())
        return gateway

    def on_exit() -> None:
        if running is not None:
            gateway, loop = running
            loop.call_soon_threadsafe(gateway.stop_waiting)

    def on_crash() -> None:
        nonlocal crashed
        crashed = True
        server.should_exit = True

    server = Server(
        uvicorn.Config(
            create_app(make_gateway, on_crash, settings.shop),
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http=cast(type[asyncio.Protocol], partial(Connection, Places(proxies))),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=1,
            timeout_keep_alive=IDLE_SECONDS,
        ),
        on_exit,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the server raises it again when done; the exit code shall be 0
    log.info("gateway starting", url=url, network=genesis.network.hex())
    server.run(sockets=_listening(settings) if settings.reuse_port or settings.own_port else None)
    return 1 if crashed or not server.started else 0


def _listening(settings: GatewaySettings) -> list[socket.socket]:
    """Bound, and not listening yet: the system sends no connection here before the gateway has started. Raises OSError."""
    bound = []
    for port, shared in ((settings.port, settings.reuse_port), *([(settings.own_port, False)] if settings.own_port else [])):
        one = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((settings.host, port))
        bound.append(one)
    return bound


def _mailing(settings: GatewaySettings) -> tuple[SmtpMailer | None, bool]:
    """The mail server, if there is one, and whether addresses must be verified. Raises SettingsError."""
    if not settings.smtp and not settings.devnet:
        raise SettingsError("smtp: outside a devnet a mail server is needed")
    must_verify = settings.verification == "required" or (not settings.verification and not settings.devnet)
    return SmtpMailer(settings.smtp, settings.mail_from) if settings.smtp else None, must_verify


def _targets(settings: GatewaySettings) -> Targets:
    """Where webhooks may go."""
    private = settings.webhook_allow_private
    return Targets(insecure=settings.devnet, private=settings.devnet if private is None else private)


def _read_issuers(settings: GatewaySettings, genesis: Genesis) -> dict[str, KeyPair]:
    """The issuer keys named in the settings. Raises SettingsError when one is not that asset's."""
    issuers = {}
    expected = {asset.code: bytes.fromhex(asset.issuer) for asset in genesis.assets}
    for code, path in settings.issuer_keys.items():
        try:
            issuers[code] = read_key_file(Path(path))
        except (OSError, ValueError) as error:
            raise SettingsError(f"issuer key of {code}: {error}") from None
        if expected.get(code) != issuers[code].public:
            raise SettingsError(f"issuer key of {code}: not the one in the genesis")
    return issuers
