"""``python -m node --config FILE``: one node of the network."""

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
import trio

from config.logs import configure
from config.settings import NodeSettings, SettingsError, read_settings
from node.consensus.simplex import Diverged
from node.protocol.genesis import read_genesis
from node.protocol.keys import generate, read_key_file, write_key_file
from node.runtime import Runtime, open_storage
from node.storage import StorageError


async def _run(runtime: Runtime) -> None:
    """Run until SIGTERM or SIGINT."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                runtime.reporter.notable("stopping")
                nursery.cancel_scope.cancel()
                return


def main() -> int:
    """Returns the exit code: 0 when asked to stop, 1 on failure, 2 on wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m node", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="settings file (TOML), see config/README.md")
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
    failures: list[str] = []
    try:
        storage = open_storage(settings, genesis)
        trio.run(_run, Runtime(settings, genesis, key, storage))
        storage.close()
    except* (StorageError, Diverged, OSError) as group:
        failures = [str(failure) for failure in _leaves(group)]
    for failure in failures:
        log.error("node stops", error=failure)
    return 1 if failures else 0


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    """The exceptions themselves, out of however many nurseries they came through."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
