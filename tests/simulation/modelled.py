"""What a simulation of a large network models, so that it takes minutes: signatures, and work that all of a committee do alike.

A signature is a tag that anybody could make. What it would have cost is counted (``Meter``), and whoever runs the network makes
its virtual core busy for so long. Decoding the same bytes and executing the same block on the same state are pure: they are done
once, and the others take the result over, a copy of their own where it changes. Their cores are as busy as if they had done it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from hashlib import sha512
from typing import Any, cast

from node import chronicle, membership, node
from node.ledger import execution as executing
from node.ledger import following
from node.ledger.execution import Execution
from node.ledger.rules import Rules
from node.ledger.state import Overlay, State
from node.protocol import bulletins, certificate, codec, entries, epoch, queries, topics, transaction
from node.protocol.channel import Bundle
from node.protocol.crypto import KeyPair
from node.protocol.entries import Entry
from node.protocol.epoch import Opening
from node.protocol.genesis import Genesis
from node.protocol.transaction import Transaction
from node.replica import mempool, proposing, replica

_VERIFIERS = (certificate, entries, epoch, membership, queries, topics, transaction)
_EXECUTIONS = 1 << 10


class Meter:
    """What was done since the start, by all: signatures checked and made, transactions and records of bundles executed."""

    def __init__(self) -> None:
        self.checks = self.signs = self.executed = 0

    def read(self) -> tuple[int, int, int]:
        return self.checks, self.signs, self.executed


def tag(public_key: bytes, message_hash: bytes) -> bytes:
    """In a signature's place: 64 bytes that only this key and message have."""
    return sha512(public_key + message_hash).digest()


class _Executions:
    """Executions by what they are of. Bundles count by their channel and number: no committee here sends two with one number."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._kept: OrderedDict[object, tuple[Execution, Overlay]] = OrderedDict()

    def execute(
        self,
        parent: State | Overlay,
        rules: Rules,
        height: int,
        time: int,
        bundles: Sequence[Bundle],
        transactions: Sequence[tuple[bytes, Transaction]],
        has_valid_signatures: Callable[[Transaction], bool],
        written: Sequence[Entry] = (),
    ) -> Execution:
        """As ``node.ledger.execution.execute``."""
        self._meter.executed += len(transactions) + sum(len(bundle.records) for bundle in bundles)
        taken = tuple((bundle.source, bundle.sequence) for bundle in bundles)
        paid = tuple(transaction_id for transaction_id, _ in transactions)
        what = (rules.chain, parent.state_root, height, time, taken, paid, tuple(written))
        kept = self._kept.get(what)
        if kept is not None:
            return _taken_over(*kept, parent)
        made = executing.execute(parent, rules, height, time, bundles, transactions, has_valid_signatures, written)
        self._kept[what] = made, _copy_of(made.overlay, parent)
        if len(self._kept) > _EXECUTIONS:
            self._kept.popitem(last=False)
        return made


def _taken_over(made: Execution, changes: Overlay, parent: State | Overlay) -> Execution:
    execution = copy(made)
    execution.overlay = _copy_of(changes, parent)
    return execution


def _copy_of(changes: Overlay, parent: State | Overlay) -> Overlay:
    """The same changes, on a state of somebody's own."""
    overlay = Overlay(parent, changes.height, changes.time)
    overlay.state_root, overlay._totals = changes.state_root, changes._totals
    overlay.supply = {suffix: copy(supply) for suffix, supply in changes.supply.items()}
    overlay.waiting_for, overlay.prepared_for = dict(changes.waiting_for), dict(changes.prepared_for)
    overlay.uncovered = {home: list(waiting) for home, waiting in changes.uncovered.items()}
    overlay.checkpoint, overlay.next_checkpoint = changes.checkpoint, changes.next_checkpoint
    overlay.checkpoint_state_root = changes.checkpoint_state_root
    overlay.balances, overlay.records, overlay.seen = dict(changes.balances), dict(changes.records), dict(changes.seen)
    overlay.included, overlay.alarms = changes.included, list(changes.alarms)
    return overlay


@contextmanager
def modelled() -> Iterator[Meter]:
    """Signatures are tags, and what all do alike is done once."""
    meter = Meter()

    def sign(self: KeyPair, message_hash: bytes) -> bytes:
        meter.signs += 1
        return tag(self.public, message_hash)

    def verify(public_key: bytes, message_hash: bytes, signature: bytes) -> bool:
        meter.checks += 1
        return sha512(public_key + message_hash).digest() == signature

    check_opening, checked = Opening.check, set[int]()

    def check(self: Opening, genesis: Genesis) -> None:
        if id(self) not in checked:
            check_opening(self, genesis)
            checked.add(id(self))

    shared = _Executions(meter)
    changed: list[tuple[Any, str, Any]] = [
        *((module, "verify", verify) for module in _VERIFIERS),
        *((module, "execute", shared.execute) for module in (replica, proposing, following)),
        (KeyPair, "sign", sign),
        (Opening, "check", check),
        (node, "decode", lru_cache(maxsize=1 << 12)(codec.decode)),
        (chronicle, "decode_message", lru_cache(maxsize=1 << 6)(bulletins.decode_message)),
        (mempool, "read_pooled", lru_cache(maxsize=1 << 16)(mempool.read_pooled)),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    try:
        for owner, name, value in changed:
            setattr(cast(Any, owner), name, value)
        yield meter
    finally:
        for owner, name, value in originals:
            setattr(cast(Any, owner), name, value)
