"""``python -m node --config FILE``: one node of the network."""

import argparse
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import structlog
import trio

from config.logs import configure
from config.settings import NodeSettings, SettingsError, read_settings
from node.consensus.simplex import Diverged
from node.database import StorageDamaged, StorageError, set_aside
from node.network.connection import MAX_VERSIONS, VERSIONS
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.keys import generate, read_key_file, write_key_file
from node.runtime import Runtime
from node.stores import Stores

_FRESH_STARTS = 3
"""A damaged database is set aside and its chain fetched anew; a disk that damages that too is for a person to look at."""


async def _run(runtime: Runtime) -> None:
    """Run until SIGTERM or SIGINT, or until it has left the network: so it is told by its folder."""

    async def run() -> None:
        await runtime.run()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                runtime.reporter.notable("stopping")
                nursery.cancel_scope.cancel()
                return


def main() -> int:
    """Returns the exit code: 0 when asked to stop, or out of the network; 1 on failure, 2 on wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m node", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="settings file (TOML), see config/README.md")
    parser.add_argument(
        "--protocol-versions",
        type=_versions,
        default=VERSIONS,
        metavar="N,...",
        help="versions of the protocol between nodes to claim, to test that others are told apart; all are spoken alike",
    )
    arguments = parser.parse_args()
    try:
        settings = read_settings(NodeSettings, arguments.config)
        genesis = read_genesis(Path(settings.genesis))
        key_file = Path(settings.key)
        if not key_file.exists():
            key_file.parent.mkdir(parents=True, exist_ok=True)
            write_key_file(key_file, generate())
        key = read_key_file(key_file)
    except (SettingsError, ValueError, OSError) as error:
        print(f"node: {error}", file=sys.stderr)
        return 2
    configure("node", settings.name)
    log = structlog.get_logger(__name__)
    for _ in range(_FRESH_STARTS):
        failures = _attempt(settings, genesis, key, arguments.protocol_versions)
        damaged = {failure.path: failure for failure in failures if isinstance(failure, StorageDamaged)}
        if not damaged:
            break
        for path, damage in damaged.items():
            log.error("set aside; fetching from peers what they have", error=str(damage), file=str(set_aside(path)))
    for failure in failures:
        log.error("node stops", error=str(failure))
    return 1 if failures else 0


def _versions(text: str) -> frozenset[int]:
    """Of ``1,2``. Raises ValueError."""
    versions = frozenset(map(int, text.split(",")))
    if min(versions) < 1 or len(versions) > MAX_VERSIONS:
        raise ValueError(f"1 to {MAX_VERSIONS} numbers from 1 on")
    return versions


def _attempt(settings: NodeSettings, genesis: Genesis, key: KeyPair, versions: frozenset[int]) -> list[BaseException]:
    """Run until stopped, or until something of the world outside is wrong: what."""
    failures: list[BaseException] = []
    try:
        with closing(Stores(Path(settings.data), genesis.network)) as stores:
            try:
                runtime = Runtime(settings, genesis, key, stores, versions)
            except ValueError as error:  # an address or URL that is none, a document of another network
                return [error]
            gc.collect()
            gc.freeze()  # what is loaded by now stays: a full collection need not look at it for 12 ms
            trio.run(_run, runtime)
    except* (StorageError, Diverged, OSError) as group:
        failures = list(_leaves(group))
    return failures


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    """The exceptions themselves, out of however many nurseries they came through."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
