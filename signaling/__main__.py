"""``python -m signaling --config FILE``: run the signaling coordinator of a network."""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from config.logs import configure
from config.settings import CoordinatorSettings, SettingsError, read_settings
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.keys import read_key_file

if TYPE_CHECKING:
    from signaling.runtime import Runtime

_DESCRIPTION = "The signaling coordinator: registers nodes, publishes signed epoch documents, announces phases."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m signaling", description=_DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML settings (config.settings)")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    configure("coordinator", "coordinator")
    try:
        settings, genesis, key = _read(arguments.config)
    except (OSError, ValueError) as error:
        return _fail(2, error)

    # libp2p takes a third of a second to import: not before the settings are known to be good.
    from node.protocol.epoch import InvalidDocument
    from signaling.runtime import Runtime
    from signaling.storage import StorageError

    try:
        runtime = Runtime(settings, genesis, key)
    except InvalidDocument as error:
        return _fail(2, f"{settings.data} is damaged: {error}")
    except (StorageError, ValueError) as error:
        return _fail(2, error)
    code = 0
    try:
        trio.run(_until_signalled, runtime)
    except* OSError as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        code = _fail(1, cause)
    return code


async def _until_signalled(runtime: "Runtime") -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.run, stop)
            async for _ in signals:
                stop.set()
                break


def _read(path: Path) -> tuple[CoordinatorSettings, Genesis, KeyPair]:
    settings = read_settings(CoordinatorSettings, path)
    genesis = read_genesis(Path(settings.genesis))
    try:
        key = read_key_file(Path(settings.key))
    except ValueError as error:
        raise SettingsError(f"{settings.key}: {error}") from None
    if key.public != genesis.coordinator_key:
        raise SettingsError(f"{settings.key} is not the key {settings.genesis} names as coordinator")
    return settings, genesis, key


def _fail(code: int, error: object) -> int:
    print(f"signaling: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
