"""How the chain of a shard begins that follows on others of the epoch before: with what their closing blocks left.

Accounts keep what they have, the issuers' shards what they issued, and all that comes from a chain remembers what that one
included and answered. Nothing is undecided any more; what went over borders is in ``carried`` and in the credits.

A captured committee may have left anything behind. So of an origin only accounts in its range count, what is held is available
again, and where two that merge have more of an asset than there can be, which takes a captured issuer's shard, the accounts with
the highest addresses lose what is too much.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from node.ledger import replay
from node.ledger.replay import Piece
from node.ledger.rows import ANSWERED, EMPTY, ISSUER, NAME_BYTES, Flow, Row, carried_key, figure_key, flow_key
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol import merkle
from node.protocol.block import Balance, Header, net, payload_root, tally
from node.protocol.credits import Credits
from node.protocol.crypto import ZERO_HASH, digest
from node.protocol.epoch import EpochDocument
from node.protocol.limits import MAX_AMOUNT


class Origin(NamedTuple):
    """A chain that is closed: its state after the closing block, or after an empty one that followed, and that block's header."""

    state: State
    closing: Header


def open_state(rules: Rules, document: EpochDocument, origins: Sequence[Origin], credit: Credits) -> State:
    """The state at height 0 of a shard of ``document``. ``credit``: what each shard could have.

    Raises ValueError when the origins are not those that the document names, in its order.
    """
    closings = [origin.closing for origin in origins]
    if tuple(closing.shard for closing in closings) != document.origins_of(rules.shard):
        raise ValueError(f"shard {rules.shard} comes from {document.origins_of(rules.shard)}")
    time = max(closing.time for closing in closings)
    states = [origin.state for origin in origins]
    balances = {key: balance for state in states for key, balance in _accounts(state, rules)}
    available = dict.fromkeys(rules.issued_in, 0)
    for key, balance in balances.items():
        available[key[NAME_BYTES:]] += balance.available
    for suffix, units in available.items():
        if units > MAX_AMOUNT:
            _take_off(balances, suffix, units - MAX_AMOUNT)
            available[suffix] = MAX_AMOUNT
    records = _answers(states) | _sums(states, rules, available)
    for (shard, asset), units in credit.items():
        if shard in rules.peers and units:
            records[figure_key(rules.shard, shard, rules.suffixes[asset])] = units
    state_root = digest("opening state", *_parts(document, closings))
    return State.opened(rules, time, state_root, chain(balances.items(), records.items()), included(states, rules, time))


def opening_header(document: EpochDocument, shard: int, state: State, closings: Sequence[Header]) -> Header:
    """The header at height 0, from that of each origin's closing block: nobody signs it, everybody computes it."""
    return Header(
        document=document.hash,
        shard=shard,
        view=0,
        height=0,
        parent=digest("opening", *_parts(document, closings)),
        skip=ZERO_HASH,
        time=state.time,
        proposer=0,
        payload_root=payload_root((), ()),
        receipts_root=merkle.EMPTY_ROOT,
        outbox_root=merkle.EMPTY_ROOT,
        changes_hash=ZERO_HASH,
        totals_hash=state.totals().hash(),
        change_hash=state.change.hash,
        state_root=state.state_root,
        nonce=bytes(8),
    )


def _parts(document: EpochDocument, closings: Iterable[Header]) -> list[bytes]:
    return [document.hash, *(closing.hash for closing in closings)]


def _accounts(state: State, rules: Rules) -> Iterator[tuple[bytes, Balance]]:
    """Those of an origin that come here."""
    first, last = max(state.rules.first, rules.first), min(state.rules.last, rules.last)
    for key, balance in state.balances.items():
        if first <= key[:NAME_BYTES] <= last:
            yield key, Balance(balance.available + balance.held, 0, balance.frozen) if balance.held else balance


def _take_off(balances: dict[bytes, Balance], suffix: bytes, units: int) -> None:
    """So much of an asset, of the accounts with the highest addresses."""
    for key in sorted((key for key in balances if key[NAME_BYTES:] == suffix), reverse=True):
        balance = balances.pop(key)
        taken = min(units, balance.available)
        units -= taken
        left = Balance(balance.available - taken, 0, balance.frozen)
        if left != EMPTY:
            balances[key] = left
        if not units:
            return


def _answers(states: Iterable[State]) -> dict[bytes, Row]:
    """Prepares that were answered: what one of the origins refuses to answer again, it refuses here."""
    found: dict[bytes, Row] = {}
    for state in states:
        for key, until in state.records.items():
            if key.endswith(ANSWERED):
                assert isinstance(until, int)
                known = found.get(key, 0)
                assert isinstance(known, int)
                found[key] = max(known, until)
    return found


def _sums(states: Iterable[State], rules: Rules, available: dict[bytes, int]) -> dict[bytes, Row]:
    """What was issued here, and what else there is."""
    found: dict[bytes, Row] = {}
    issued = dict.fromkeys(available, 0)
    for state in states:
        for suffix, shard in state.rules.issued_in.items():
            flow = state.flow(key := flow_key(ISSUER, suffix))
            if shard == state.rules.shard and rules.issued_in[suffix] == rules.shard and (flow.entered or flow.left):
                found[key], issued[suffix] = Flow(flow.entered, flow.left), net(flow.entered, flow.left)
    carried = {carried_key(suffix): tally(units - issued[suffix]) for suffix, units in available.items()}
    return found | {key: units for key, units in carried.items() if units}


def included(states: Sequence[State], rules: Rules, time: int) -> Iterator[Piece]:
    """The replay set of a chain that begins at this block time: what one of the states includes and could be included again."""
    for slot in sorted({slot for state in states for slot in state.replay_set}):
        if slot >= replay.slot_of(time):
            ids = chain.from_iterable(state.replay_set.get(slot, ()) for state in states)
            yield from replay.parts_anew(rules.shard, slot, ids)
