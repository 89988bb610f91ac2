"""``scripts/leave``: nodes leave their network in order."""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from config.settings import NodeSettings, SettingsError, read_settings
from node.leaving import begin_to_leave, has_left
from scripts.devnet import processes, session
from scripts.devnet.layout import Folder
from scripts.devnet.session import Screen

DESCRIPTION = """Has nodes leave the network that ./scripts/up or ./scripts/launch runs in DIR.

They say good-bye, and take part until an epoch has begun in which others keep their shards; then they end, for good. That needs
nodes enough for a committee without them. Exit code: 0 when all are gone, 1 when they are not in time: then they still run, and
still leave as soon as they can."""


class LeaveError(Exception):
    """A node cannot leave; the text says why."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./scripts/leave", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="names of nodes, e.g. node-7")
    parser.add_argument("--data", type=Path, default=Path(".shardpay"), metavar="DIR", help="where they run (.shardpay)")
    parser.add_argument("--timeout", type=session.seconds, default=600, metavar="S", help="how long to wait, seconds (600)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    folder = Folder(options.data.absolute().resolve())
    try:
        ask_to_leave(folder, options.nodes)
    except (LeaveError, OSError) as error:
        print(f"leave: {error}", file=sys.stderr)
        return 1
    return 0 if wait_until_gone(folder, options.nodes, options.timeout, Screen(), session.stop_signal()) else 1


def ask_to_leave(folder: Folder, names: Sequence[str]) -> None:
    """Have each know that it is to leave. Raises LeaveError for what is no node that runs; then none is asked."""
    staying = [name for name in names if not has_left(folder.home(name))]
    running = processes.programs_running(folder)
    for name in staying:
        try:
            read_settings(NodeSettings, folder.settings(name))
        except SettingsError:
            raise LeaveError(f"there is no node {name} in {folder.data}") from None
        if name not in running:
            raise LeaveError(f"{name} does not run in {folder.data}: start it first")
    for name in staying:
        begin_to_leave(folder.home(name))


def wait_until_gone(folder: Folder, names: Sequence[str], seconds: float, screen: Screen, stop: threading.Event) -> bool:
    """Whether all are gone within so many seconds. Says how it went."""
    deadline = time.monotonic() + seconds
    while True:
        running = processes.programs_running(folder)
        waiting = [name for name in names if name in running or not has_left(folder.home(name))]
        if not waiting:
            screen.say(f"Gone: {', '.join(names)}.")
            return True
        if time.monotonic() >= deadline or stop.wait(0.5):
            screen.say(f"Still there: {', '.join(waiting)}. They go on, and leave as soon as others keep their shards.")
            return False
        screen.progress(f"Waiting until others keep the shards of {', '.join(waiting)} ...")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
