"""What can be asked of ``scripts/bench``."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

from scripts.devnet.layout import MAX_GATEWAYS
from scripts.devnet.session import port_base

DESCRIPTION = """Measures throughput, latency and cost of a network on this machine.

A network of its own is started in a temporary folder and ended afterwards, unless --data names a running one. Two phases:
a light load for latency, then as many transactions in flight as --in-flight for throughput and cost. The options named "also"
add phases before or after. Costs are given in signature checks, timed during the load they are compared with."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Ends the program, as argparse does, when they make no sense."""
    parser = argparse.ArgumentParser(
        prog="./scripts/bench", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=positive, default=20.0, help="of full load, and of each phase but --empty (20)")
    parser.add_argument("--cross", type=float, default=0.0, metavar="SHARE", help="share of cross-shard transactions, 0 to 1 (0)")
    parser.add_argument("--in-flight", type=int, default=4_000, metavar="COUNT", help="transactions under way at once (4000)")
    parser.add_argument("--committees", type=int, default=2, metavar="K", help="of an own network (2)")
    parser.add_argument("--committee-size", type=int, default=4, metavar="N", help="of an own network (4)")
    parser.add_argument("--dead", type=int, default=0, metavar="D", help="then end D nodes of each committee and measure R5 (0)")
    empty = "also R6: idle for so long (60), then 20 blocks a second"
    parser.add_argument("--empty", type=positive, nargs="?", const=60.0, metavar="SECONDS", help=empty)
    parser.add_argument("--gateway", action="store_true", help="also payments over HTTP by 1, 32 and 128 clients, and R7")
    parser.add_argument("--gateways", type=int, default=1, metavar="G", help="processes of an own network's gateway (1)")
    parser.add_argument("--postgresql", action="store_true", help="the gateway's database is a PostgreSQL, not a file")
    parser.add_argument("--pgbench", action="store_true", help="also PostgreSQL's TPC-B before and after, and the ratio to it")
    parser.add_argument("--profile", action="store_true", help="also where the CPU of nodes and gateway goes, by part (Linux)")
    parser.add_argument("--table", action="store_true", help="1, 2 and 4 committees, --cross 0, 0.5 and 1; one Markdown table")
    parser.add_argument("--port-base", type=port_base, default=18_000, metavar="P", help="of an own network (18000)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="measure the network that runs in this folder")
    against = "instead: take turns with the network that runs in this folder, of another version, say; ratios with their error"
    parser.add_argument("--against", type=Path, metavar="DIR", help=against)
    parser.add_argument("--turns", type=turns, default=20, metavar="T", help="with --against: of each, as long as --seconds (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object; with --table, a list of them")
    options = parser.parse_args(arguments)
    if not 0 <= options.cross <= 1 or options.in_flight < 1:
        parser.error("--cross is between 0 and 1, --in-flight positive")
    own = options.profile or options.table or options.postgresql or options.gateways != 1
    if own and options.data is not None:
        parser.error("--profile, --table, --gateways and --postgresql start networks of their own: leave out --data")
    more = options.table or options.profile or options.pgbench or options.empty or options.dead
    if more and options.against is not None:
        parser.error("--against measures full load and, with --gateway, HTTP: no other option adds to it")
    if not 1 <= options.gateways <= MAX_GATEWAYS:
        parser.error(f"--gateways is 1 to {MAX_GATEWAYS}")
    if options.profile and options.table and not options.json:
        parser.error("the profiles of --table are shown with --json only")
    return options


def turns(text: str) -> int:
    """Of fewer than two no error can be told. Raises ArgumentTypeError, which argparse shows."""
    if text.isdecimal() and (count := int(text)) >= 2:
        return count
    raise argparse.ArgumentTypeError("must be 2 or more")


def positive(text: str) -> float:
    """Seconds. Raises ArgumentTypeError, which argparse shows."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < inf:
            return value
    raise argparse.ArgumentTypeError("must be a positive number of seconds")
