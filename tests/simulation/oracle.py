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
from tests.vectors.change_reference import ChangingLedger
from tests.vectors.opening_reference import Credits, network_of, open_chains
from tests.vectors.reference import Invalid, Network, digest, root

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
    """One shard in one epoch, as its final blocks make it.

    Attributes:
        first: the header of height 0. header: of the last block. closing: of the closing block, or None.
        electorate: who signs. ledger: after the last block.
        blocks: all, each with its effects, as they were stored first.
        ends: outcome and code by transaction, once decided here. begun: those that a receipt PREPARED is there for.
    """

    def __init__(self, epoch: int, electorate: dict[str, Any], first: list[Any], ledger: ChangingLedger) -> None:
        self.epoch, self.electorate, self.first, self.header, self.ledger = epoch, electorate, first, first, ledger
        self.closing: list[Any] | None = None
        self.blocks: list[list[Any]] = []
        self.ends: dict[bytes, tuple[int, str]] = {}
        self.begun: set[bytes] = set()

    @property
    def shard(self) -> int:
        return self.ledger.shard

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
    """All shards of all epochs. ``complain(kind, text)`` is called for what must not be. ``genesis``: as its JSON has it;
    ``document``: that of epoch 1, encoded; ``limits``: where they are not the protocol's.

    Attributes:
        chains: by epoch and shard. Those of the next epoch are there once all of this one are closed.
        documents: of each epoch that began, unpacked, from the first.
        transactions: legs by id, of all that any shard includes.
    """

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
        genesis_hash, plain = digest("genesis", list(genesis.values())), msgpack.unpackb(document)
        issuers = {asset["code"]: reference.address_of(bytes.fromhex(asset["issuer"])) for asset in genesis["assets"]}
        orders = digest("network", genesis_hash, digest("epoch document", document))[:16]
        terms = {asset["code"]: (asset["fee"], asset["smallest_balance"]) for asset in genesis["assets"]}
        rules = orders, self._parameters, [(bytes(20), 0)], issuers, terms, reference.LIMITS | dict(limits), verify
        network = network_of(Network(*rules), plain)
        self.chains: dict[tuple[int, int], Chain] = {}
        self.documents: list[list[Any]] = [plain]
        self.transactions: dict[bytes, list[Any]] = {}
        self._homes: dict[bytes, int] = {}
        """The epoch that included each of them."""
        self._credits: Credits = {}
        self._sent: dict[tuple[int, ...], list[Any]] = {}
        self._taken: dict[tuple[int, ...], list[Any]] = {}
        self._overdrawn: list[Overdrawn] = []
        for electorate in _electorates(plain):
            shard, key = electorate["shard"], bytes.fromhex(genesis["coordinator"])
            ledger = ChangingLedger(shard, network, plain, key, genesis["time"])
            self.chains[1, shard] = Chain(1, electorate, _genesis_header(genesis_hash, shard, genesis["time"]), ledger)

    @property
    def epoch(self) -> int:
        """The last one that began."""
        return len(self.documents)

    def chains_of(self, epoch: int) -> dict[int, Chain]:
        """By shard."""
        return {shard: chain for (number, shard), chain in self.chains.items() if number == epoch}

    def _begin(self) -> None:
        """All chains are closed: those of the next epoch begin."""
        closed = self.chains_of(self.epoch)
        ledgers = {shard: chain.ledger for shard, chain in closed.items()}
        closings = {shard: chain.closing for shard, chain in closed.items() if chain.closing is not None}
        (document,) = (ledger.prospect for ledger in ledgers.values() if ledger.is_register)
        self._check_closed(document, ledgers)
        opened, self._credits = open_chains(document, ledgers, closings, self._credits)
        if (before := _figures(ledgers.values())) != (after := _figures(opened.values())):
            self._complain("conservation", f"epoch {self.epoch} ends with {before}, the next one begins with {after}")
        self.documents.append(document)
        for electorate in _electorates(document):
            ledger = opened[electorate["shard"]]
            self.chains[self.epoch, ledger.shard] = Chain(self.epoch, electorate, ledger.header, ledger)

    def _check_closed(self, document: list[Any], ledgers: Mapping[int, ChangingLedger]) -> None:
        """All obey one decision; nothing is undecided; what was issued is there; each range has one shard, each node one seat."""
        if {(ledger.attempt, ledger.next) for ledger in ledgers.values()} != {(document[2], digest("epoch document", document))}:
            self._complain("decision", f"the shards of epoch {self.epoch} do not close for the same attempt and document")
        for ledger in ledgers.values():
            if self._captured is None and ledger.undecided():
                self._complain("holds", f"shard {ledger.shard} closes epoch {self.epoch} with something undecided")
        owned, issued = _figures(ledgers.values())
        if self._captured is None and owned != issued:
            self._complain("conservation", f"epoch {self.epoch} ends with {owned}, but {issued} was issued")
        firsts, shards = [first for _, first, _ in document[5]], [shard for shard, _, _ in document[5]]
        keys = [member[3] for _, _, members in document[5] for member in members]
        if min(firsts) != bytes(20) or any(len(set(some)) != len(some) for some in (firsts, shards, keys)):
            self._complain("ranges", f"epoch {self.epoch + 1} would have a range twice, or by nobody")

    # -- each member's blocks --------------------------------------------------------------------------------------

    def stored(self, who: object, place: tuple[int, int], encoded: bytes, bundles: Iterable[tuple[int, int, bytes]]) -> None:
        """A block of the chain (epoch, shard) that a member stores as final, with the certified bundles it sends. The first of
        each height is executed, the others must be the same; the proofs differ, and all are checked."""
        (block, finality, effects), chain = msgpack.unpackb(encoded), self.chains[place]
        height = block[0][_HEIGHT]
        where = f"block {height} of shard {chain.shard} in epoch {chain.epoch}, stored by {who},"
        if not reference.is_final(chain.electorate, block[0], finality, verify):
            self._complain("proof", f"{where} does not prove itself")
        if height == chain.height + 1:
            self._extend(chain, where, block, effects)
        elif chain.blocks[height - 1] != [block, effects]:
            self._complain("agreement", f"{where} is not what others stored")
        for destination, number, data in bundles:
            self._check_sent(where, chain, (destination, number), data)
        if all(one.closing for one in self.chains_of(self.epoch).values()):
            self._begin()

    def _check_sent(self, where: str, chain: Chain, at: tuple[int, int], data: bytes) -> None:
        certified = msgpack.unpackb(data)
        if not reference.is_bundle(chain.electorate, certified, verify):
            self._complain("proof", f"{where} sends a bundle that does not prove itself")
        if certified[0] != self._sent.get((chain.epoch, chain.shard, *at)):
            self._complain("channel", f"{where} sends something else than executing it gives")

    def _extend(self, chain: Chain, where: str, block: list[Any], effects: list[Any]) -> None:
        (header, bundles, transactions, entries), most = block, chain.ledger.network.limits
        self._check_header(chain, where, header)
        if header[_PAYLOAD] != root([root(bundles), root(transactions), root(entries)]):
            self._complain("proof", f"{where} has another payload than its header says")
        if len(transactions) > self._parameters["block_transactions"] or sum(map(len, transactions)) > most["payload"]:
            self._complain("limit", f"{where} has too many transactions")
        taken = [self._take(chain, where, data) for data in bundles]
        records = sum(len(bundle[3]) for bundle in taken)
        if len(bundles) > 1 and (sum(map(len, bundles)) > most["payload"] or records > most["records"]):
            self._complain("limit", f"{where} takes too many records")
        try:
            roots, sent = chain.ledger.execute(header[_HEIGHT], header[_TIME], taken, transactions, entries)
        except Invalid as error:
            self._complain("invalid", f"{where} breaks a rule: {error}")
            return
        for bundle in sent:
            self._match(chain, where, self._sent, self._taken, bundle)
        self._compare(chain, where, roots, header, effects)
        chain.blocks.append([block, effects])
        chain.header = header
        if chain.ledger.closed == header[_HEIGHT]:
            chain.closing = header
        self._note_ends(chain, transactions)
        if self._captured is not None and chain.epoch == 1:
            self._check_bulkhead(self._captured, chain, where)
            self._judge_overdrawn(self._captured, chain, [tuple(one[:3]) for one in sent])

    def _check_bulkhead(self, captured: int, chain: Chain, where: str) -> None:
        """Of what it does not issue nobody takes in from a captured shard more than all others have passed to it. What they had
        passed by a block that is on no disk yet, though a bundle of it has been taken, is waited for."""
        unsent = [channel[1:] for channel in self._taken if channel[0] == chain.epoch and channel not in self._sent]
        unknown = [(a, b, n) for a, b, n in unsent if b == chain.shard and a != captured]
        for asset in chain.ledger.network.issuers:
            key = reference.boundary(captured + 1, asset)
            passed = [other.ledger.rows.get(key, [0, 0])[1] for _, other in sorted(self.chains_of(chain.epoch).items())]
            if (taken := chain.ledger.rows.get(key, [0])[0]) > sum(passed):
                self._overdrawn.append(Overdrawn(where, asset, taken, passed, unknown))

    def _judge_overdrawn(self, captured: int, chain: Chain, sent: list[tuple[int, ...]]) -> None:
        """A block of a shard is known now, with what it sends."""
        waiting = []
        for drawn in self._overdrawn:
            if any(channel in sent for channel in drawn.unknown):
                row = chain.ledger.rows.get(reference.boundary(captured + 1, drawn.asset), [0, 0])
                drawn.passed[chain.shard] = row[1]
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

    def _check_header(self, chain: Chain, where: str, header: list[Any]) -> None:
        if header[_PARENT] != digest("block", chain.header) or header[_VIEW] <= chain.header[_VIEW]:
            self._complain("agreement", f"{where} does not follow on the one before")
        down = reference.skipped(header[_HEIGHT])
        if header[_SKIP] != digest("block", chain.blocks[down - 1][0][0] if down else chain.first):
            self._complain("agreement", f"{where} does not skip to block {down}")
        if int.from_bytes(digest("block", header), "big") >> 256 - self._parameters["block_difficulty_bits"]:
            self._complain("work", f"{where} is not mined")
        if header[_PROPOSER] != header[_VIEW] % len(chain.electorate["keys"]):
            self._complain("leader", f"{where} is of member {header[_PROPOSER]} in view {header[_VIEW]}")

    def _take(self, chain: Chain, where: str, data: bytes) -> list[Any]:
        certified = msgpack.unpackb(data)
        bundle: list[Any] = certified[0]
        if not self.is_proven(certified, chain.epoch):
            self._complain("proof", f"{where} takes a bundle that does not prove itself")
        self._match(chain, where, self._taken, self._sent, bundle)
        return bundle

    def is_proven(self, certified: list[Any], epoch: int = 1) -> bool:
        """Whether a bundle is what its source's committee made final in this epoch."""
        source = self.chains.get((epoch, certified[0][0]))
        return source is not None and reference.is_bundle(source.electorate, certified, verify)

    def _match(
        self, chain: Chain, where: str, into: dict[Any, list[Any]], other: dict[Any, list[Any]], bundle: list[Any]
    ) -> None:
        """What is taken must be what was sent; a bundle may be known before the block that sent it."""
        channel = (chain.epoch, *bundle[:3])
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

    def _note_ends(self, chain: Chain, transactions: list[bytes]) -> None:
        for encoded in transactions:
            order = msgpack.unpackb(encoded)[0]
            transaction_id = digest("transaction", order)
            if self._homes.setdefault(transaction_id, chain.epoch) != chain.epoch:
                self._complain("twice", f"epoch {chain.epoch} includes {_short(transaction_id)} a second time")
            self.transactions[transaction_id] = order[1]
        for transaction_id, outcome, code in chain.ledger.receipts:
            if outcome == PREPARED:
                chain.begun.add(transaction_id)
                continue
            is_known = self._captured is None or transaction_id in self.transactions
            if is_known and any(transaction_id in one.ends for one in self._earlier(chain)):
                self._complain("twice", f"shard {chain.shard} decides {_short(transaction_id)} a second time")
            chain.ends[transaction_id] = outcome, code
            self._check_same_end(transaction_id)

    def _earlier(self, chain: Chain) -> list[Chain]:
        """This one, and all of earlier epochs."""
        return [one for one in self.chains.values() if one is chain or one.epoch < chain.epoch]

    def _check_same_end(self, transaction_id: bytes) -> None:
        touched = self._touched(transaction_id)
        ends = {chain.shard: chain.ends[transaction_id][0] for chain in touched if transaction_id in chain.ends}
        if len({outcome == COMMITTED for outcome in ends.values()}) > 1:
            self._complain("atomicity", f"{_short(transaction_id)} ends differently: {ends}")

    def _touched(self, transaction_id: bytes) -> list[Chain]:
        """Those with a payer or payee, in the epoch that included it; home first."""
        if transaction_id not in self._homes:
            return []
        chains = self.chains_of(self._homes[transaction_id])
        network = next(iter(chains.values())).ledger.network
        addresses = [address for leg in self.transactions[transaction_id] for address in leg[:2]]
        return [chains[shard] for shard in dict.fromkeys(map(network.shard_of, addresses))]

    # -- what clients may rely on ----------------------------------------------------------------------------------

    def end_at_home(self, transaction_id: bytes) -> tuple[int, str] | None:
        """What the home shard made of a transaction."""
        touched = self._touched(transaction_id)
        return touched[0].ends.get(transaction_id) if touched else None

    # -- the end ---------------------------------------------------------------------------------------------------

    def check_drained(self) -> None:
        """Nothing is held or on its way; each transaction ended in every shard it touches as it did at home."""
        for epoch in range(1, self.epoch + 1):
            for shard, chain in self.chains_of(epoch).items():
                totals, pending = chain.ledger.totals()
                if pending or any(held for _, _, held, *_ in totals):
                    self._complain("holds", f"shard {shard} of epoch {epoch} still holds something: {pending} undecided")
            owned, issued = _figures(chain.ledger for chain in self.chains_of(epoch).values())
            if owned != issued:
                self._complain("conservation", f"all shards of epoch {epoch} together own {owned}, but {issued} was issued")
        for channel in self._taken.keys() - self._sent.keys():
            self._complain("channel", f"bundle {channel} (epoch, from, to, number) was taken, and never sent")
        for transaction_id in self.transactions:
            if self.end_at_home(transaction_id) is None:
                self._complain("receipts", f"{_short(transaction_id)} was included and never ends")
            elif self.end_at_home(transaction_id) == (COMMITTED, ""):
                for chain in self._touched(transaction_id):
                    if transaction_id not in chain.ends:
                        self._complain("atomicity", f"{_short(transaction_id)} is committed, but not in shard {chain.shard}")


def _electorates(document: list[Any]) -> list[dict[str, Any]]:
    """Who signs in each shard."""
    signed = digest("epoch document", document).hex()
    committees = [(shard, [member[3].hex() for member in members]) for shard, _, members in document[5]]
    return [
        {"document": signed, "shard": shard, "quorum": len(keys) - (len(keys) - 1) // 3, "keys": keys}
        for shard, keys in committees
    ]


def _figures(ledgers: Iterable[ChangingLedger]) -> tuple[dict[str, int], dict[str, int]]:
    """What there is of each asset: owned by somebody, issued."""
    owned, issued = defaultdict[str, int](int), defaultdict[str, int](int)
    for ledger in ledgers:
        for asset, available, held, minted, burned, *_ in ledger.totals()[0]:
            owned[asset] += available + held
            issued[asset] += ledger.network.signed(minted - burned)
    return dict(owned), dict(issued)


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
