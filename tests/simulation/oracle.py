"""A second opinion on all that is final: proofs, and what each block does, by the second implementation.

It shares nothing with the code under test: it reads the bytes that members store with ``msgpack``, checks signatures with
OpenSSL, and executes each block on a ledger written from ``docs/protocol.md`` alone (``tests/vectors/reference.py``).
Whatever every member's code gets wrong alike shows here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgpack  # type: ignore[import-untyped]
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

from tests.vectors import reference
from tests.vectors.reference import Invalid, Ledger, digest, root

Complain = Callable[[str, str], None]
PREPARED, COMMITTED, REJECTED, EXPIRED = 1, 2, 3, 4
_DIGEST = ec.ECDSA(utils.Prehashed(SHA256()))
_VIEW, _HEIGHT, _PARENT, _SKIP, _TIME, _PROPOSER, _PAYLOAD = range(2, 9)
"""Where these are in a header."""


@lru_cache(maxsize=1 << 10)
def _point(public: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public)


@lru_cache(maxsize=1 << 16)
def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature (r, s; low s) of a hash is the key's, as OpenSSL sees it."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if s > reference.ORDER // 2:
        return False
    try:
        _point(public).verify(utils.encode_dss_signature(r, s), message, _DIGEST)
    except (InvalidSignature, ValueError):
        return False
    return True


class Overdrawn(Struct):
    """A block after which a shard has taken more of the captured one than was passed to it, as far as known.

    ``passed``: by shard. ``unknown``: bundles it took from blocks that are not known yet."""

    where: str
    asset: str
    taken: int
    passed: list[int]
    unknown: list[tuple[int, int, int]]

    def __str__(self) -> str:
        return f"{self.where} has {self.taken} {self.asset} of the captured shard, to which {sum(self.passed)} were passed"


class Chain:
    """One shard as its final blocks make it.

    Attributes:
        header: of the last block. effects: of all blocks, with the blocks themselves, as they were stored first.
        ends: outcome and code by transaction, once decided here. begun: those that a receipt PREPARED is there for.
    """

    def __init__(self, header: list[Any], ledger: Ledger) -> None:
        self.header, self.ledger = header, ledger
        self.blocks: list[list[Any]] = []
        self.ends: dict[bytes, tuple[int, str]] = {}
        self.begun: set[bytes] = set()

    @property
    def height(self) -> int:
        return len(self.blocks)

    @property
    def last_view(self) -> int:
        return int(self.header[_VIEW])

    @property
    def undecided(self) -> int:
        return len(self.ledger.undecided())


class Oracle:
    """All shards. ``complain(kind, text)`` is called for what must not be. ``genesis``: as its JSON has it; ``document``: the
    encoded epoch document; ``limits``: where they are not the protocol's."""

    def __init__(
        self,
        genesis: Mapping[str, Any],
        document: bytes,
        limits: Mapping[str, int],
        complain: Complain,
        captured: int | None = None,
    ) -> None:
        self._captured = captured
        self._complain, self._parameters = complain, genesis["parameters"]
        genesis_hash = digest("genesis", list(genesis.values()))
        issuers = {asset["code"]: reference.address_of(bytes.fromhex(asset["issuer"])) for asset in genesis["assets"]}
        committees = [(first, [member[3] for member in members]) for _, first, members in msgpack.unpackb(document)[5]]
        document_hash = digest("epoch document", document)
        orders = digest("network", genesis_hash, document_hash)[:16]
        ranges = [(first, shard) for shard, (first, _) in enumerate(committees)]
        terms = {asset["code"]: (asset["fee"], asset["smallest_balance"]) for asset in genesis["assets"]}
        self._network = reference.Network(
            orders, self._parameters, ranges, issuers, terms, reference.LIMITS | dict(limits), verify
        )
        self._electorates: list[dict[str, Any]] = [
            {"document": document_hash.hex(), "shard": shard, "quorum": len(keys) - (len(keys) - 1) // 3}
            | {"keys": [key.hex() for key in keys]}
            for shard, (_, keys) in enumerate(committees)
        ]
        time, shards = genesis["time"], range(len(committees))
        self._genesis_headers = [_genesis_header(genesis_hash, shard, time) for shard in shards]
        self.chains = [Chain(self._genesis_headers[shard], Ledger(shard, self._network, time)) for shard in shards]
        self.transactions: dict[bytes, list[Any]] = {}
        """Legs by id, of all that any shard includes."""
        self._sent: dict[tuple[int, int, int], list[Any]] = {}
        self._taken: dict[tuple[int, int, int], list[Any]] = {}
        self._overdrawn: list[Overdrawn] = []

    # -- each member's blocks --------------------------------------------------------------------------------------

    def stored(self, who: object, shard: int, encoded: bytes, bundles: Iterable[tuple[int, int, bytes]]) -> None:
        """A block that a member stores as final, with the certified bundles it sends. The first of each height is executed,
        the others must be the same; the proofs differ, and all are checked."""
        (block, finality, effects), chain = msgpack.unpackb(encoded), self.chains[shard]
        height = block[0][_HEIGHT]
        where = f"block {height} of shard {shard}, stored by {who},"
        if not reference.is_final(self._electorates[shard], block[0], finality, verify):
            self._complain("proof", f"{where} does not prove itself")
        if height == chain.height + 1:
            self._extend(chain, shard, where, block, effects)
        elif chain.blocks[height - 1] != [block, effects]:
            self._complain("agreement", f"{where} is not what others stored")
        for destination, number, data in bundles:
            self._check_sent(where, (shard, destination, number), data)

    def _check_sent(self, where: str, channel: tuple[int, int, int], data: bytes) -> None:
        certified = msgpack.unpackb(data)
        if not reference.is_bundle(self._electorates[channel[0]], certified, verify):
            self._complain("proof", f"{where} sends a bundle that does not prove itself")
        if certified[0] != self._sent.get(channel):
            self._complain("channel", f"{where} sends something else than executing it gives")

    def _extend(self, chain: Chain, shard: int, where: str, block: list[Any], effects: list[Any]) -> None:
        (header, bundles, transactions, entries), most = block, self._network.limits
        self._check_header(chain, shard, where, header)
        if header[_PAYLOAD] != root([root(bundles), root(transactions), root(entries)]):
            self._complain("proof", f"{where} has another payload than its header says")
        if len(transactions) > self._parameters["block_transactions"] or sum(map(len, transactions)) > most["payload"]:
            self._complain("limit", f"{where} has too many transactions")
        taken = [self._take(where, data) for data in bundles]
        records = sum(len(bundle[3]) for bundle in taken)
        if len(bundles) > 1 and (sum(map(len, bundles)) > most["payload"] or records > most["records"]):
            self._complain("limit", f"{where} takes too many records")
        try:
            roots, sent = chain.ledger.execute(header[_HEIGHT], header[_TIME], taken, transactions)
        except Invalid as error:
            self._complain("invalid", f"{where} breaks a rule: {error}")
            return
        for bundle in sent:
            self._match(where, self._sent, self._taken, bundle)
        self._compare(chain, where, roots, header, effects)
        chain.blocks.append([block, effects])
        chain.header = header
        self._note_ends(chain, shard, transactions)
        if self._captured is not None:
            self._check_bulkhead(self._captured, chain, where)
            self._judge_overdrawn(self._captured, shard, [(one[0], one[1], one[2]) for one in sent])

    def _check_bulkhead(self, captured: int, chain: Chain, where: str) -> None:
        """Of what it does not issue nobody takes in from a captured shard more than all others have passed to it. What they had
        passed by a block that is on no disk yet, though a bundle of it has been taken, is waited for."""
        unknown = [c for c in self._taken if c[1] == chain.ledger.shard and c[0] != captured and c not in self._sent]
        for asset in self._network.issuers:
            key = reference.boundary(captured + 1, asset)
            passed = [other.ledger.rows.get(key, [0, 0])[1] for other in self.chains]
            if (taken := chain.ledger.rows.get(key, [0])[0]) > sum(passed):
                self._overdrawn.append(Overdrawn(where, asset, taken, passed, unknown))

    def _judge_overdrawn(self, captured: int, shard: int, sent: list[tuple[int, int, int]]) -> None:
        """A block of a shard is known now, with what it sends."""
        waiting = []
        for drawn in self._overdrawn:
            if any(channel in sent for channel in drawn.unknown):
                row = self.chains[shard].ledger.rows.get(reference.boundary(captured + 1, drawn.asset), [0, 0])
                drawn.passed[shard] = row[1]
                drawn.unknown = [channel for channel in drawn.unknown if channel not in sent]
            if drawn.taken <= sum(drawn.passed):
                continue
            if drawn.unknown:
                waiting.append(drawn)
            else:
                self._complain("bulkhead", str(drawn))
        self._overdrawn = waiting

    def check_captured(self) -> None:
        """At the end of a run: nothing was taken that cannot be accounted for."""
        for drawn in self._overdrawn:
            self._complain("bulkhead", str(drawn))

    def _check_header(self, chain: Chain, shard: int, where: str, header: list[Any]) -> None:
        if header[_PARENT] != digest("block", chain.header) or header[_VIEW] <= chain.header[_VIEW]:
            self._complain("agreement", f"{where} does not follow on the one before")
        down = reference.skipped(header[_HEIGHT])
        if header[_SKIP] != digest("block", chain.blocks[down - 1][0][0] if down else self._genesis_headers[shard]):
            self._complain("agreement", f"{where} does not skip to block {down}")
        if int.from_bytes(digest("block", header), "big") >> 256 - self._parameters["block_difficulty_bits"]:
            self._complain("work", f"{where} is not mined")
        if header[_PROPOSER] != header[_VIEW] % len(self._electorates[shard]["keys"]):
            self._complain("leader", f"{where} is of member {header[_PROPOSER]} in view {header[_VIEW]}")

    def _take(self, where: str, data: bytes) -> list[Any]:
        certified = msgpack.unpackb(data)
        bundle: list[Any] = certified[0]
        if not self.is_proven(certified):
            self._complain("proof", f"{where} takes a bundle that does not prove itself")
        self._match(where, self._taken, self._sent, bundle)
        return bundle

    def is_proven(self, certified: list[Any]) -> bool:
        """Whether a bundle is what its source's committee made final."""
        source = certified[0][0]
        return source < len(self._electorates) and reference.is_bundle(self._electorates[source], certified, verify)

    def _match(self, where: str, into: dict[Any, list[Any]], other: dict[Any, list[Any]], bundle: list[Any]) -> None:
        """What is taken must be what was sent; a bundle may be known before the block that sent it."""
        channel = tuple(bundle[:3])
        if other.get(channel, bundle) != bundle:
            self._complain("channel", f"{where}: bundle {channel} is not what was sent")
        into[channel] = bundle

    def _compare(self, chain: Chain, where: str, roots: list[bytes], header: list[Any], effects: list[Any]) -> None:
        ledger = chain.ledger
        for name, ours, theirs in (
            ("receipts", ledger.receipts, effects[0]),
            ("balances", ledger.changes[0], effects[1][0]),
            ("records", ledger.changes[1], effects[1][1]),
            ("totals", ledger.totals(), effects[2]),
            ("roots", roots, header[_PAYLOAD + 1 : -1]),
        ):
            if ours != theirs:
                different = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b][:1] or [(len(ours), len(theirs))]
                self._complain(name, f"{where} should have other {name}: {_readable(different[0])}")

    def _note_ends(self, chain: Chain, shard: int, transactions: list[bytes]) -> None:
        for encoded in transactions:
            order = msgpack.unpackb(encoded)[0]
            self.transactions[digest("transaction", order)] = order[1]
        for transaction_id, outcome, code in chain.ledger.receipts:
            if outcome == PREPARED:
                chain.begun.add(transaction_id)
                continue
            if transaction_id in chain.ends and (self._captured is None or transaction_id in self.transactions):
                self._complain("twice", f"shard {shard} decides {_short(transaction_id)} a second time")
            chain.ends[transaction_id] = outcome, code
            self._check_same_end(transaction_id)

    def _check_same_end(self, transaction_id: bytes) -> None:
        shards = self._shards_of(transaction_id)
        ends = {
            shard: self.chains[shard].ends[transaction_id][0] for shard in shards if transaction_id in self.chains[shard].ends
        }
        if len({outcome == COMMITTED for outcome in ends.values()}) > 1:
            self._complain("atomicity", f"{_short(transaction_id)} ends differently: {ends}")

    def _shards_of(self, transaction_id: bytes) -> list[int]:
        """Home first."""
        legs = self.transactions.get(transaction_id, [])
        return list(dict.fromkeys(self._network.shard_of(address) for leg in legs for address in leg[:2]))

    # -- what clients may rely on ----------------------------------------------------------------------------------

    def end_at_home(self, transaction_id: bytes) -> tuple[int, str] | None:
        """What the home shard made of a transaction."""
        shards = self._shards_of(transaction_id)
        return self.chains[shards[0]].ends.get(transaction_id) if shards else None

    # -- the end ---------------------------------------------------------------------------------------------------

    def check_drained(self) -> None:
        """Nothing is held or on its way; each transaction ended in every shard it touches as it did at home."""
        minted, owned = defaultdict[str, int](int), defaultdict[str, int](int)
        for shard, chain in enumerate(self.chains):
            totals, pending = chain.ledger.totals()
            if pending or any(held for _, _, held, *_ in totals):
                self._complain("holds", f"shard {shard} still holds something: {pending} undecided")
            for asset, available, held, issued, burned, *_ in totals:
                owned[asset] += available + held
                minted[asset] += self._network.signed(issued - burned)
        if owned != minted:
            self._complain("conservation", f"all shards together own {dict(owned)}, but {dict(minted)} was issued")
        for channel in self._taken:
            if channel not in self._sent:
                self._complain(
                    "channel", f"shard {channel[1]} took bundle {channel[2]} of shard {channel[0]}, which never sent it"
                )
        for transaction_id in self.transactions:
            if self.end_at_home(transaction_id) is None:
                self._complain("receipts", f"{_short(transaction_id)} was included and never ends")
            elif self.end_at_home(transaction_id) == (COMMITTED, ""):
                for shard in self._shards_of(transaction_id):
                    if transaction_id not in self.chains[shard].ends:
                        self._complain("atomicity", f"{_short(transaction_id)} is committed at home, but not in shard {shard}")


def _genesis_header(genesis_hash: bytes, shard: int, time: int) -> list[Any]:
    """The one of height 0."""
    nothing, zero = root([]), bytes(32)
    roots = [root([nothing] * 3), nothing, nothing, zero, digest("totals", [[], 0]), digest("change", reference.NO_CHANGE), zero]
    return [zero, shard, 0, 0, genesis_hash, zero, time, 0, *roots, bytes(8)]


def _readable(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()[:8]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_readable, value))}]"
    return str(value)


def _short(transaction_id: bytes) -> str:
    return f"transaction {transaction_id.hex()[:8]}"
