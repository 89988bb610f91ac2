"""``scripts/launch``: only nodes, for a network whose coordinator and broker are elsewhere."""

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from node.protocol.genesis import Genesis, read_genesis
from scripts.devnet import folder as folders
from scripts.devnet import processes, session
from scripts.devnet.layout import DEFAULT_PORT_BASE, MAX_NODES, Folder, Ports, node_program, node_settings
from scripts.devnet.processes import ProcessError
from scripts.devnet.session import Screen
from scripts.devnet.supervisor import Supervisor, last_words
from scripts.devnet.watch import Listener

DESCRIPTION = """Runs nodes of a network on this machine, against a coordinator and a broker elsewhere: start it on each.

Nodes keep their keys and ledgers under --data, and go on with them at the next start. What dies is started again; Ctrl-C ends
all of them. Other machines must reach the nodes' ports, P+100 and up, at the address given with --advertise."""
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
    for name in ("nodes", "genesis", "coordinator", "broker"):
        if getattr(options, name) is None:
            parser.error(f"--{name} is needed")
    if not 1 <= options.nodes <= MAX_NODES:
        parser.error(f"--nodes must be between 1 and {MAX_NODES}")
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
        return launch(folder, read_genesis(options.genesis), options)
    except (ProcessError, OSError, ValueError) as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1


def launch(folder: Folder, genesis: Genesis, options: argparse.Namespace) -> int:
    screen, stop, ports = Screen(), session.stop_signal(), Ports(options.port_base)
    processes.raise_file_limit()
    names = [f"{options.name_prefix}-{index}" for index in range(options.nodes)]
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
        for index, name in enumerate(names)
    }
    programs = [node_program(folder, ports, index, name, sys.executable) for index, name in enumerate(names)]
    listener = Listener(options.broker, genesis)
    listener.start()
    with processes.changing(folder):
        folders.write_settings(folder, settings)
        running, started = processes.start_missing(folder, programs)
    screen.say(f"Started {session.counted(started)}." if started else "Nothing was missing.")
    with processes.supervising(folder) as mine:
        if options.detach:
            stop.wait(SETTLE_SECONDS)  # what is wrong with a node's settings shows at once
            for program in programs:
                if how := running[program.name].ended():
                    with processes.changing(folder):
                        processes.stop(folder, only=started)
                    raise ProcessError(f"{program.name} {how}{last_words(program)}")
            screen.say(f"Running in the background; logs in {folder.data / 'logs'}.")
        elif mine:
            screen.say("Ctrl-C ends everything.")
            supervisor, began = Supervisor(folder, programs, running), time.monotonic()

            def line() -> str:
                return listener.line(len(supervisor.running), options.nodes, time.monotonic() - began)

            session.supervise(folder, supervisor, screen, stop, line)
        else:
            screen.say(f"Process {processes.supervisor(folder)} supervises these nodes; nothing left to do here.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
