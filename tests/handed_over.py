"""A shard's state with many accounts, on a disk as if it had been handed over there."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from msgspec import structs

from node.effects import BeginHandoff, FinishHandoff, StoreParts
from node.ledger.checkpoint import Outline
from node.ledger.commitment import EMPTY_TREE, branches, updated
from node.ledger.replay import Piece, pieces
from node.ledger.rows import ISSUER, Flow, Row, flow_key
from node.protocol.block import AssetTotal, Balance, Header, Totals, skip_height
from node.protocol.certificate import Finality
from node.protocol.checkpoint import CertifiedCheckpoint, Ids, Rows, next_state_root
from node.protocol.codec import encode
from node.protocol.crypto import HASH_BYTES, digest
from node.protocol.limits import MAX_PART_ROWS
from node.row_tables import path_of
from node.storage import Storage
from tests.measure_checkpoint import key

ASSET = "USD"
INTERVAL = 200
"""Blocks between two checkpoints."""
_PART = 20_000
_VALID = 600_000


class HandedOver(NamedTuple):
    outline: Outline
    proof: CertifiedCheckpoint


def hand_over(
    storage: Storage,
    accounts: int,
    ids: int,
    opening: Header,
    height: int,
    finality: Callable[[Header], Finality],
) -> HandedOver:
    """Store so many accounts with a unit each, and ids that blocks included, as of a checkpoint at this height.

    ``opening``: what all headers have but for height, view, and what follows from the rows. ``finality``: signs for the
    committee.
    """
    storage.write([BeginHandoff()])
    tree = EMPTY_TREE
    balances = ((row, Balance(1)) for row in sorted(map(key, range(accounts)), key=path_of))
    while rows := list(islice(balances, _PART)):
        storage.write([_stored(rows)])
        tree = updated(tree, rows)
    records: dict[bytes, Row] = {flow_key(ISSUER, ASSET.encode()): Flow(accounts)}
    for piece in _included(records, ids, opening.time):
        storage.write([StoreParts((Ids(piece.key, piece.ids),))])
    storage.write([_stored(records.items())])
    tree = updated(tree, records.items())
    outline = Outline(height, height + INTERVAL, tree.root, branches(tree, MAX_PART_ROWS))
    proof = _proof(outline, accounts, opening, finality)
    storage.write([FinishHandoff(proof)])
    return HandedOver(outline, proof)


def _stored(rows: Iterable[tuple[bytes, Balance | Row]]) -> StoreParts:
    return StoreParts((Rows(b"", tuple((row, encode(value)) for row, value in rows)),))


def _included(records: dict[bytes, Row], count: int, time: int) -> Iterator[Piece]:
    """The parts of the replay set, each once and whole; ``records`` gets their rows. Ids are valid for ten minutes at most."""
    included = {digest("measured", n.to_bytes(8, "big")): time + n * _VALID // count for n in range(count)}
    ids: dict[bytes, bytes] = {}
    for piece, row in pieces(records.get, 0, included):
        records[piece.key] = row
        assert piece.start * HASH_BYTES == len(ids.get(piece.key, b""))
        ids[piece.key] = ids.get(piece.key, b"") + piece.ids
    return (Piece(row, 0, found) for row, found in ids.items())


def _proof(outline: Outline, accounts: int, opening: Header, finality: Callable[[Header], Finality]) -> CertifiedCheckpoint:
    totals = Totals((AssetTotal(ASSET, accounts, 0, accounts, 0, 0, ()),), 0)
    heights = [outline.height]
    while below := skip_height(heights[-1]):
        heights.append(below)
    headers, skip = list[Header](), opening.hash
    for height in reversed(heights):
        fields = {"height": height, "skip": skip, "view": height, "totals_hash": totals.hash()}
        headers.append(structs.replace(opening, **fields))
        skip = headers[-1].hash
    at = headers.pop()
    root = next_state_root(bytes(32), at.changes_hash, at.state_root + outline.root)
    certifying = structs.replace(at, height=outline.certified_at, view=outline.certified_at, state_root=root)
    skipped = tuple(reversed(headers))
    return CertifiedCheckpoint(at, finality(at), certifying, finality(certifying), bytes(32), outline.root, skipped)
