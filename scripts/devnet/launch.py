"""``scripts/launch``: more nodes for a network of ``scripts/up`` here, or only nodes of one that is elsewhere."""

import argparse
import json
import platform
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from node.leaving import has_left
from node.protocol.genesis import Genesis, read_genesis
from scripts.devnet import folder as folders
from scripts.devnet import processes, session
from scripts.devnet.folder import FolderError
from scripts.devnet.layout import DEFAULT_PORT_BASE, MAX_NODES, Folder, Ports, Program, node_program, node_settings
from scripts.devnet.processes import ProcessError, Running
from scripts.devnet.session import Screen
from scripts.devnet.supervisor import Supervisor, last_words
from scripts.devnet.watch import Listener

DESCRIPTION = """Runs nodes of a network on this machine.

With --nodes and --data alone: more nodes for the network that ./scripts/up made in DIR. They have seats from the next epoch
on that has room for them. They run in the background, as part of that network: ./scripts/up in the foreground, or the next one,
supervises them with the others, and its --status, --down and --fresh are for them, too.

With --genesis, --coordinator and --broker: nodes of a network elsewhere; start it on each machine. Nodes keep their keys and
ledgers under --data, and go on with them at the next start. What dies is started again; Ctrl-C ends all of them. Other
machines must reach the nodes' ports, P+100 and up, at the address given with --advertise."""
SETTLE_SECONDS = 3.0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./scripts/launch", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, metavar="N", help=f"how many, at most {MAX_NODES}")
    parser.add_argument("--genesis", type=Path, metavar="FILE", help="the network's genesis file")
    parser.add_argument("--coordinator", metavar="MULTIADDR", help="e.g. /ip4/10.0.0.1/tcp/8020")
    parser.add_argument("--broker", metavar="URL", help="e.g. redis://10.0.0.1:8010/0")
    parser.add_argument("--host", default="0.0.0.0", help="IP address to listen on (0.0.0.0)")
    parser.add_argument("--advertise", metavar="IP", help="IP address other machines reach this one at (--host, if that is one)")
    parser.add_argument("--data", type=Path, default=Path(".shardpay/launch"), metavar="DIR", help="(.shardpay/launch)")
    parser.add_argument(
        "--port-base", type=session.port_base, default=DEFAULT_PORT_BASE, metavar="P", help="node i listens on P+100+i (8000)"
    )
    parser.add_argument(
        "--name-prefix", metavar="NAME", help="nodes are called NAME-0, ... (this machine's name); unique in the network"
    )
    parser.add_argument(
        "--keep-blocks", type=session.blocks, default=0, metavar="N", help="final blocks that each keeps at least; 0: all (0)"
    )
    parser.add_argument("--detach", action="store_true", help="leave the nodes running in the background")
    parser.add_argument("--down", action="store_true", help="end the nodes that run in DIR")
    parser.add_argument("--status", action="store_true", help="which nodes run in DIR, as JSON")
    options = parser.parse_args(arguments)
    if options.down or options.status:
        return options
    options.joins = options.genesis is options.coordinator is options.broker is None
    for name in ("nodes",) if options.joins else ("nodes", "genesis", "coordinator", "broker"):
        if getattr(options, name) is None:
            parser.error(f"--{name} is needed")
    if not 1 <= options.nodes <= MAX_NODES:
        parser.error(f"--nodes must be between 1 and {MAX_NODES}")
    if options.joins:
        return options
    if options.advertise is None:
        if options.host in ("0.0.0.0", "::"):
            parser.error("--advertise is needed: the IP address other machines reach this one at")
        options.advertise = options.host
    options.name_prefix = options.name_prefix or re.sub(r"[^A-Za-z0-9._-]", "-", platform.node())[:24] or "node"
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,28}", options.name_prefix):
        parser.error("--name-prefix: at most 28 letters, digits, and . _ -")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    folder = Folder(options.data.absolute().resolve())
    try:
        if options.down:
            print(session.down(folder))
            return 0
        if options.status:
            print(json.dumps({name: child.pid for name, child in sorted(processes.programs_running(folder).items())}))
            return 0
        return join(folder, options.nodes) if options.joins else launch(folder, read_genesis(options.genesis), options)
    except (FolderError, ProcessError, OSError, ValueError) as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1


def join(folder: Folder, count: int) -> int:
    """Add nodes to the network that lives in a folder, and start them."""
    screen, stop = Screen(), session.stop_signal()
    processes.raise_file_limit()
    with processes.changing(folder):
        before = folders.read_state(folder)
        devnet = folders.add_nodes(folder, count)
        indexes, names = devnet.node_indexes[-count:], devnet.node_names[-count:]
        settings = devnet.settings()
        folders.write_settings(folder, {name: settings[name] for name in names})
        programs = [node_program(folder, devnet.ports, *node, sys.executable) for node in zip(indexes, names, strict=True)]
        try:
            running, started = processes.start_missing(folder, programs)
            _check_settled(folder, programs, running, stop)
        except ProcessError:
            assert before is not None
            processes.stop(folder, only=names)
            folders.write_state(folder, before)
            raise
    screen.say(f"Started {session.counted(started)}, in the background. They have seats from the next epoch on that has room.")
    return 0


def launch(folder: Folder, genesis: Genesis, options: argparse.Namespace) -> int:
    screen, stop, ports = Screen(), session.stop_signal(), Ports(options.port_base)
    processes.raise_file_limit()
    all_names = [f"{options.name_prefix}-{index}" for index in range(options.nodes)]
    names = {index: name for index, name in enumerate(all_names) if not has_left(folder.home(name))}
    settings = {
        name: node_settings(
            folder,
            ports,
            index,
            name,
            genesis=options.genesis.absolute(),
            coordinator=options.coordinator,
            broker=options.broker,
            host=options.host,
            advertise=options.advertise,
            keep_blocks=options.keep_blocks,
        )
        for index, name in names.items()
    }
    programs = [node_program(folder, ports, index, name, sys.executable) for index, name in names.items()]
    listener = Listener(options.broker, genesis)
    listener.start()
    with processes.changing(folder):
        folders.write_settings(folder, settings)
        running, started = processes.start_missing(folder, programs)
    screen.say(f"Started {session.counted(started)}." if started else "Nothing was missing.")
    with processes.supervising(folder) as mine:
        if options.detach:
            try:
                _check_settled(folder, programs, running, stop)
            except ProcessError:
                with processes.changing(folder):
                    processes.stop(folder, only=started)
                raise
            screen.say(f"Running in the background; logs in {folder.data / 'logs'}.")
        elif mine:
            screen.say("Ctrl-C ends everything.")
            supervisor, began = Supervisor(folder, programs, running), time.monotonic()

            def line() -> str:
                return listener.line(len(supervisor.running), len(names), time.monotonic() - began)

            session.supervise(folder, supervisor, screen, stop, line)
        else:
            screen.say(f"Process {processes.supervisor(folder)} supervises these nodes; nothing left to do here.")
    return 0


def _check_settled(folder: Folder, programs: Sequence[Program], running: Mapping[str, Running], stop: threading.Event) -> None:
    """What is wrong with a node's settings shows at once. Raises ProcessError."""
    stop.wait(SETTLE_SECONDS)
    for program in programs:
        if (how := running[program.name].ended()) and not has_left(folder.home(program.name)):
            raise ProcessError(f"{program.name} {how}{last_words(program)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
