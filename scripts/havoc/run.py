"""``scripts/chaos``: the worst day of a live network, and what is left of the money afterwards."""

import argparse
import contextlib
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

from node.protocol.limits import MAX_COMMITTEE, MAX_SHARDS
from scripts.devnet import session
from scripts.devnet.customer import CustomerError
from scripts.devnet.folder import FolderError
from scripts.devnet.processes import ProcessError
from scripts.devnet.session import Screen
from scripts.havoc.chaos import CannotRun, Chaos, Interrupted
from scripts.havoc.plan import KINDS
from scripts.havoc.report import table

DESCRIPTION = """Starts a network of its own, keeps it under load through the gateway, and does to it what one should not.

Faults are drawn from the seed. After each the network must recover by itself; at the end everything the gateway ever took in
must be decided, every balance must be what the committed payments add up to, at the gateway and at every node, all nodes of a
committee must have one state, and the audit must pass. Exit code: 0 all of it holds, 1 something does not - then the network's
folder is left to look at -, 2 it could not be tried.

With --epoch-seconds committees change meanwhile: in each epoch nodes are launched and others told to leave, and in each phase of
a change the coordinator is killed once, then once more. Faults, lost votes and who leaves are together no more than f members of
any committee, of this epoch or the next, but for faults that take whole committees.

Faults (--faults, --without):
""" + "\n".join(f"  {kind:<12} {text}" for kind, text in KINDS.items())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./scripts/chaos", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="of faults (5); checking comes on top")
    parser.add_argument("--seed", type=int, metavar="S", help="which faults, in which order (a random one, printed)")
    parser.add_argument("--faults", metavar="KIND,...", help="only these kinds")
    parser.add_argument("--without", default="", metavar="KIND,...", help="all kinds but these")
    parser.add_argument("--epoch-seconds", type=int, default=0, metavar="S", help="change epochs every S seconds (never)")
    parser.add_argument("--namespaces", action="store_true", help="every node on a host of its own; needs root and `ip`")
    parser.add_argument("--rate", type=float, default=30.0, metavar="R", help="payments a second (30)")
    parser.add_argument("--committees", type=int, default=2, metavar="K", help="(2)")
    parser.add_argument("--committee-size", type=int, default=4, metavar="N", help="(4)")
    parser.add_argument("--gateways", type=int, default=1, metavar="G", help="processes of the gateway (1)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="make the network here, and leave it (a temporary folder)")
    parser.add_argument("--port-base", type=session.port_base, default=27_000, metavar="P", help="ports count from P (27000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 60 * 24 * 7 or not 0 < options.rate <= 500:
        parser.error("--minutes is positive, --rate between 0 and 500")
    if not 1 <= options.committees <= MAX_SHARDS or not 1 <= options.committee_size <= MAX_COMMITTEE:
        parser.error("--committees and --committee-size are positive")
    if options.epoch_seconds and not 10 <= options.epoch_seconds <= 86_400:
        parser.error("--epoch-seconds is 10 at least, 86400 at most")
    if options.epoch_seconds and options.namespaces:
        parser.error("--namespaces knows only the nodes of the beginning: not with --epoch-seconds")
    options.kinds = set(options.faults.split(",") if options.faults else KINDS) - set(options.without.split(","))
    if not options.kinds or (unknown := options.kinds - KINDS.keys()):
        parser.error(f"no such kind of fault: {', '.join(sorted(unknown))}" if options.kinds else "no kind of fault is left")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    stop = session.stop_signal()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = Chaos(options, Screen(), stop).run()
    except Interrupted:
        print("chaos: interrupted; everything is ended", file=sys.stderr)
        return 130
    except (CannotRun, FolderError, ProcessError, CustomerError, httpx.HTTPError, OSError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result) if options.json else table(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
