"""``scripts/odds``: how likely it is that a committee drawn at random has more bad members than it can bear.

Members are drawn without putting back, so the bad ones among them follow the hypergeometric distribution. Exact: whole numbers
until the last division. For all committees of an epoch together the chance is at most the sum of theirs (union bound).
"""

import argparse
import sys
from collections.abc import Sequence
from math import comb

from node.protocol.limits import MAX_COMMITTEE

DESCRIPTION = """The chance that at least one committee of an epoch has more than f = floor((n - 1) / 3) bad members, when all
nodes are divided among committees of n at random, and a share of all nodes is bad. With --target also the smallest n that keeps
the chance below it. The chance is that of one draw: of E draws, at most E times as large."""
SIZES = (4, 7, 10, 16, 31, 64, 100, 150, 200, 250, 400)
SHARES = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
MAX_NODES = 1_000_000


def committee_fails(nodes: int, bad: int, size: int) -> float:
    """The chance that of ``size`` members drawn from ``nodes``, of which ``bad`` are bad, more than f are."""
    bearable, drawn = (size - 1) // 3, comb(nodes, size)
    fine = sum(comb(bad, count) * comb(nodes - bad, size - count) for count in range(min(bearable, bad, size) + 1))
    return (drawn - fine) / drawn


def epoch_fails(nodes: int, bad: int, size: int) -> float:
    """An upper bound of the chance that any committee of an epoch has too many bad members."""
    return min(1.0, (nodes // size) * committee_fails(nodes, bad, size))


def smallest_size(nodes: int, bad: int, target: float) -> int | None:
    """The smallest committee that keeps an epoch's chance at or below ``target``; of sizes 3f + 1, the others bear no more."""
    sizes = range(4, nodes + 1, 3)
    return next((size for size in sizes if epoch_fails(nodes, bad, size) <= target), None)


def shown(chance: float) -> str:
    """Short, and never rounded down to nothing."""
    return "0" if chance == 0 else f"{chance:.2g}" if chance >= 1e-4 else f"{chance:.0e}"


def table(nodes: int, sizes: Sequence[int], shares: Sequence[float]) -> str:
    """A line for each size, a column for each share of bad nodes."""
    lines = ["| members n | f | " + " | ".join(f"{share:.0%} bad" for share in shares) + " |"]
    lines.append("|---|---|" + "---|" * len(shares))
    for size in sizes:
        chances = [shown(epoch_fails(nodes, round(share * nodes), size)) for share in shares]
        lines.append(f"| {size} | {(size - 1) // 3} | " + " | ".join(chances) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./scripts/odds", description=DESCRIPTION)
    parser.add_argument("--nodes", type=int, default=4000, metavar="N", help="in the whole network (default 4000)")
    parser.add_argument("--bad", type=float, metavar="SHARE", help="of all nodes, 0 to 1 (default: a table of several)")
    parser.add_argument("--size", type=int, metavar="n", help="members of a committee (default: a table of several)")
    parser.add_argument("--target", type=float, metavar="CHANCE", help="in an epoch: print the smallest n that keeps it")
    options = parser.parse_args(arguments)
    if not 4 <= options.nodes <= MAX_NODES:
        parser.error(f"--nodes: 4 to {MAX_NODES}")
    if options.bad is not None and not 0 <= options.bad <= 1:
        parser.error("--bad: 0 to 1")
    if options.size is not None and not 1 <= options.size <= options.nodes:
        parser.error("--size: 1 to --nodes")
    if options.target is not None and not 0 < options.target < 1:
        parser.error("--target: between 0 and 1")
    shares = SHARES if options.bad is None else (options.bad,)
    sizes = [size for size in SIZES if size <= options.nodes] if options.size is None else [options.size]
    print(f"{options.nodes} nodes; chance that any committee of an epoch has more than f bad members:\n")
    print(table(options.nodes, sizes, shares))
    for share in shares if options.target is not None else ():
        size = smallest_size(options.nodes, round(share * options.nodes), options.target)
        beyond = f" (more than this version's {MAX_COMMITTEE})" if size is not None and size > MAX_COMMITTEE else ""
        print(f"\n{share:.0%} bad: {'no committee is large enough' if size is None else f'n = {size}{beyond}'}", end="")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
