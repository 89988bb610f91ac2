"""What a block costs because of checkpoints, with many accounts: ``python -m tests.measure_checkpoint --accounts 5000000``.

A real database is filled with accounts and the state restored from it. Then rows are written and empty blocks follow, until the
checkpoint with these rows is certified. Times are CPU time of this thread, so that a busy machine does not matter much.
"""

import argparse
import gc
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import thread_time

from msgspec import structs

from node.effects import Checkpoint
from node.ledger.execution import Execution, genesis_header
from node.ledger.rows import ISSUER, Flow, flow_key
from node.ledger.state import Overlay, State
from node.protocol.block import AssetTotal, Balance, Totals
from node.protocol.codec import encode
from node.storage import Storage
from tests.unit.ledger_driver import Ledgers

_PART = 20_000


def key(number: int) -> bytes:
    return sha256(number.to_bytes(8, "big")).digest()[:20] + b"USD"


def fill(storage: Storage, accounts: int) -> None:
    """As many accounts with one unit each, as of height 200."""
    keys = (key(number) for number in range(accounts))
    while part := tuple(islice(keys, _PART)):
        storage.write([Checkpoint(200, tuple((row, encode(Balance(1))) for row in part), None)])
    storage.write([Checkpoint(200, ((flow_key(ISSUER, b"USD"), encode(Flow(accounts))),), 400)])


def restore(storage: Storage, accounts: int) -> State:
    ledgers = Ledgers(1, checkpoint_interval=200)
    totals = Totals((AssetTotal("USD", accounts, 0, accounts, 0, 0, ()),), 0)
    at = structs.replace(genesis_header(ledgers.genesis, 0, ledgers.states[0]), height=200, totals_hash=totals.hash())
    return State.restore(ledgers.rules[0], at, 400, storage.rows(200), storage.ids)


def block(state: State, storage: Storage, rows: Sequence[bytes]) -> tuple[float, float, float]:
    """One more block that writes these rows: ms of executing it, of committing it, of storing what is due."""
    started = thread_time()
    overlay = Overlay(state, state.height + 1, state.time)
    overlay.balances.update((row, Balance(state.height)) for row in rows)
    execution = Execution(overlay, (), ())
    executed = thread_time()
    part = Checkpoint(*state.commit(execution.overlay))
    committed = thread_time()
    storage.write([part])
    return 1e3 * (executed - started), 1e3 * (committed - executed), 1e3 * (thread_time() - committed)


def until_certified(state: State, storage: Storage) -> Iterator[tuple[float, float, float]]:
    """Empty blocks up to the header with the root of the next checkpoint."""
    for due in (state.next_checkpoint, None):
        due = due or state.next_checkpoint
        while state.height < due:
            yield block(state, storage, ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=5_000_000)
    accounts = parser.parse_args().accounts
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder) / "node.db", b"measured")
        fill(storage, accounts)
        before, started = getrusage(RUSAGE_SELF).ru_maxrss, thread_time()
        state = restore(storage, accounts)
        seconds, grown = thread_time() - started, getrusage(RUSAGE_SELF).ru_maxrss - before
        print(f"{accounts} accounts: restored in {seconds:.1f} s, {seconds / accounts * 1e6:.1f} s a million", flush=True)
        print(f"memory: {grown / 1024:.0f} MiB more at its highest, {grown * 1024 / accounts:.0f} bytes an account", flush=True)
        by_path = {sha256(key(number)).digest()[:2]: number for number in range(accounts)}
        for name, numbers in (
            ("one row in each of 65536 parts of the tree", array("q", by_path.values())),
            ("every row", array("q", range(accounts))),
        ):
            by_path.clear()
            own = []
            for start in range(0, len(numbers), _PART):
                own.append(block(state, storage, [key(number) for number in numbers[start : start + _PART]]))
            print(f"{name}: {sum(map(sum, own)) / len(own):.0f} ms a block of up to {_PART} rows, own cost", flush=True)
            due = state.next_checkpoint
            events = list(until_certified(state, storage))
            for what, column in zip(("executing", "committing", "storing"), zip(*events, strict=True), strict=True):
                print(f"  {what:10} at most {max(column):6.1f} ms, {sum(column) / len(column):6.2f} ms on average")
            whole = sum(executing + committing for executing, committing, _ in events)
            print(
                f"  {len(events)} empty blocks, certified {state.height - due} after; {whole / len(numbers) * 1e3:.1f} us a row",
                flush=True,
            )
        started = thread_time()
        gc.collect()
        print(f"a full garbage collection: {1e3 * (thread_time() - started):.0f} ms")
        storage.close()


if __name__ == "__main__":
    main()
