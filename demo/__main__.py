"""``python -m demo --config FILE``: the live dashboard."""

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from config.logs import configure
from config.settings import DashboardSettings, SettingsError, read_settings
from demo.api import make_app
from demo.collector import Collector
from demo.feed import ask, feed, now_ms, report
from demo.stream import MAX_STREAMS, Board
from node.client.line import Line
from node.protocol.genesis import Genesis, read_genesis

MAX_CONNECTIONS = MAX_STREAMS + 100


class Server(uvicorn.Server):
    """uvicorn, but signals are ours: it would die of the signal after stopping, and we end with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Stopped(Exception):
    """A signal asked us to end."""


async def tick(board: Board) -> None:
    """Publish a new picture every second. Never returns."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        board.publish(now_ms())
        due = max(due + 1, loop.time())
        await asyncio.sleep(due - loop.time())


async def serve(settings: DashboardSettings, genesis: Genesis, line: Line, listener: socket.socket) -> None:
    """Run until SIGTERM or SIGINT. A task that fails ends it all: better no page than one that shows the past as the present."""
    collector = Collector(genesis, settings.gateway, now_ms())
    board = Board(collector)
    feed(line, collector)
    server = Server(
        uvicorn.Config(
            make_app(collector, board),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,
            lifespan="off",
        )
    )

    def stop() -> None:
        board.close()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    host, port = listener.getsockname()[:2]
    structlog.get_logger().info("listening", host=host, port=port)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(line.run())
            tasks.create_task(report(line, collector, lambda: f"open pages: {board.streams}"))
            tasks.create_task(ask(line, collector))
            tasks.create_task(tick(board))
            await server.serve(sockets=[listener])
            raise Stopped
    except* Stopped:
        pass


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Live dashboard of a shardpay network.")
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="settings (TOML): config.settings.DashboardSettings"
    )
    arguments = parser.parse_args()
    try:
        settings = read_settings(DashboardSettings, arguments.config)
        genesis = read_genesis(Path(settings.genesis))
        line = Line(settings.broker)
        listener = listen(settings.host, settings.port)
    except OSError as error:
        return refuse(f"{error.filename or f'{settings.host}:{settings.port}'}: {error.strerror or error}")
    except (SettingsError, ValueError) as error:
        return refuse(str(error))
    configure("dashboard", "dashboard")
    asyncio.run(serve(settings, genesis, line, listener))
    return 0


def refuse(reason: str) -> int:
    print(f"demo: {' '.join(reason.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
