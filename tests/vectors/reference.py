"""The second implementation, from ``README.md`` here and ``docs/protocol.md``, on ``hashlib``, ``ecdsa`` and ``msgpack`` alone.

It knows nothing of the code under test: messages are plain lists, an electorate is an object of ``votes.json``, the epoch is
``epoch.json``. Its ledger also gives the simulator's second opinion on every block.
"""

import hmac
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import ecdsa
import msgpack  # type: ignore[import-untyped]

ORDER: int = ecdsa.SECP256k1.order
Check = Callable[[bytes, bytes, bytes], bool]
"""Whether a public key signed a hash so."""
LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


unhex = bytes.fromhex
FILES: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("*.json"))}
EPOCH = FILES["epoch"]
PARAMETERS = EPOCH["genesis"]["parameters"]


def digest(domain: str, *parts: Any) -> bytes:
    """Of the parts, encoded where they are not bytes."""
    data = [part if isinstance(part, bytes) else msgpack.packb(part) for part in parts]
    return sha256(sha256(b"shardpay/" + domain.encode()).digest() + b"".join(data)).digest()


def address_of(public: bytes) -> bytes:
    return sha256(public).digest()[:20]


def public_key(secret: bytes) -> bytes:
    key: bytes = ecdsa.SigningKey.from_string(secret, ecdsa.SECP256k1).verifying_key.to_string("compressed")
    return key


def sign(secret: bytes, message: bytes) -> bytes:
    """RFC 6979, with low S."""
    key = ecdsa.SigningKey.from_string(secret, ecdsa.SECP256k1)
    signature: bytes = key.sign_digest_deterministic(message, sha256, ecdsa.util.sigencode_string_canonize)
    return signature


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    if int.from_bytes(signature[32:], "big") > ORDER // 2:
        return False
    try:
        return bool(ecdsa.VerifyingKey.from_string(public, ecdsa.SECP256k1).verify_digest(signature, message))
    except (ecdsa.BadSignatureError, ecdsa.keys.BadDigestError):
        return False


def derived(seed: bytes, path: str) -> bytes:
    """The private key at a path of BIP-32."""
    both = hmac.new(b"Bitcoin seed", seed, "sha512").digest()
    for step in path.split("/")[1:]:
        secret, chain = both[:32], both[32:]
        index = int(step[:-1]) + 2**31 if step.endswith("'") else int(step)
        parent = b"\0" + secret if step.endswith("'") else public_key(secret)
        both = hmac.new(chain, parent + index.to_bytes(4, "big"), "sha512").digest()
        number = (int.from_bytes(both[:32], "big") + int.from_bytes(secret, "big")) % ORDER
        both = number.to_bytes(32, "big") + both[32:]
    return both[:32]


def bech32m(prefix: str, data: bytes) -> str:
    """BIP 350 as a polynomial division over GF(32)."""
    powers = [1]
    while len(powers) < 31:
        powers.append((powers[-1] << 1) ^ (0b101001 if powers[-1] & 16 else 0))

    def times(a: int, b: int) -> int:
        return powers[(powers.index(a) + powers.index(b)) % 31] if a and b else 0

    bits = "".join(f"{byte:08b}" for byte in data)
    words = [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]
    generator = [29, 22, 20, 21, 29, 18]  # g(x) = x^6 + 29x^5 + 22x^4 + 20x^3 + 21x^2 + 29x + 18, BIP 173
    remainder = [0, 0, 0, 0, 0, 1]
    for word in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + words + [0] * 6:
        top = remainder[0]
        remainder = [a ^ times(top, g) for a, g in zip([*remainder[1:], word], generator, strict=True)]
    constant = [0x2BC830A3 >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(LETTERS[w] for w in words + [a ^ b for a, b in zip(remainder, constant, strict=True)])


def root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if len(leaves) <= 1:
        return sha256(b"\x00" + leaves[0] if leaves else b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def branch_root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that a branch leads to, from the top down; None when it leads nowhere."""
    if size == 1 or not path:
        return None if size != 1 or path else sha256(b"\x00" + leaf).digest()
    split = 1 << (size - 1).bit_length() - 1
    right = index >= split
    below = branch_root(leaf, index - split, size - split, path[:-1]) if right else branch_root(leaf, index, split, path[:-1])
    return below and sha256(b"\x01" + (path[-1] + below if right else below + path[-1])).digest()


def statement(electorate: dict[str, Any], kind: int, view: int, block: bytes) -> bytes:
    return digest("vote", [unhex(electorate["document"]), electorate["shard"], kind, view, block])


def is_vote(electorate: dict[str, Any], vote: list[Any], check: Check = verify) -> bool:
    kind, view, block, signer, signature = vote
    keys = electorate["keys"]
    return signer < len(keys) and check(unhex(keys[signer]), statement(electorate, kind, view, block), signature)


def is_certificate(electorate: dict[str, Any], certificate: list[Any], check: Check = verify) -> bool:
    kind, view, block, signers, signatures = certificate
    return (
        len(signers) == len(signatures) == electorate["quorum"]
        and signers == sorted(set(signers))
        and all(is_vote(electorate, [kind, view, block, i, s], check) for i, s in zip(signers, signatures, strict=True))
    )


def skipped(height: int) -> int:
    """The height less the greatest power of two that divides it."""
    power = 1
    while height % (2 * power) == 0:
        power *= 2
    return height - power


def is_final(electorate: dict[str, Any], header: list[Any], finality: list[Any], check: Check = verify) -> bool:
    path, certificate = finality
    if header[:2] != [unhex(electorate["document"]), electorate["shard"]]:
        return False
    low = header[3]
    for following in path:
        down = skipped(following[3])
        place, link = (down, following[5]) if down >= low else (following[3] - 1, following[4])
        if (place, link) != (header[3], digest("block", header)):
            return False
        header = following
    return certificate[:3] == [3, header[2], digest("block", header)] and is_certificate(electorate, certificate, check)


def is_block(electorate: dict[str, Any], certified: list[Any], check: Check = verify) -> bool:
    (header, bundles, transactions, entries), finality, (receipts, changes, totals) = certified
    return (
        is_final(electorate, header, finality, check)
        and header[8] == root([root(bundles), root(transactions), root(entries)])
        and header[9] == root(list(map(msgpack.packb, receipts)))
        and header[11] == digest("changes", changes)
        and header[12] == digest("totals", totals)
    )


def is_bundle(electorate: dict[str, Any], certified: list[Any], check: Check = verify) -> bool:
    bundle, header, finality, branch = certified
    proven = branch_root(msgpack.packb(bundle), *branch)
    return bundle[0] == header[1] and is_final(electorate, header, finality, check) and header[10] == proven


def epoch_of(genesis: dict[str, Any], registrations: list[bytes], secrets: dict[bytes, bytes]) -> list[Any]:
    """The document of epoch 1, in attempt 1, from the secrets told by public key."""
    challenge, rows = digest("genesis", list(genesis.values())), sorted(map(msgpack.unpackb, registrations), key=lambda r: r[3])
    told = [row for row in rows if row[3] in secrets]
    assert all(digest("seat secret", secrets[row[3]]) == row[7] for row in told)
    roll = digest("roll", [challenge[:8], 1, 1, rows])
    randomness = digest("randomness", roll, *(row[3] + secrets[row[3]] for row in told))
    seated = sorted(told, key=lambda row: digest("seat", randomness, row[3]))
    size = genesis["parameters"]["committee_size"]
    count = min(genesis["parameters"]["committees"], len(told) // size)
    committees = [[i, (i * 2**160 // count).to_bytes(20, "big"), seated[i * size : (i + 1) * size]] for i in range(count)]
    silent = [row for row in rows if row[3] not in secrets]
    revealed = [secrets[row[3]] for row in told]
    return [challenge[:8], 1, 1, challenge, randomness, committees, seated[count * size :], silent, revealed, [], b""]


def tree(rows: Mapping[bytes, Any], depth: int = 0) -> bytes:
    """The root over a whole state, or over the rows whose paths have the same first ``depth`` digits."""
    if len(rows) <= 64:
        hashes = [digest("row", [key, rows[key]]) for key in sorted(rows)]
        return digest("leaf", *hashes) if rows else bytes(32)
    children = [{key: row for key, row in rows.items() if int(sha256(key).hexdigest()[depth], 16) == i} for i in range(16)]
    return digest("node", *(tree(child, depth + 1) for child in children))


class Network(NamedTuple):
    """What a ledger needs to know of its network, in one epoch. ``orders``: what every order names. ``ranges``: the first
    address and the number of each shard, by address. ``terms``: each asset's fee and smallest balance. ``limits``: section 19."""

    orders: bytes
    parameters: dict[str, Any]
    ranges: list[tuple[bytes, int]]
    issuers: dict[str, bytes]
    terms: dict[str, tuple[int, int]]
    limits: dict[str, int]
    verify: Check = verify

    def shard_of(self, address: bytes) -> int:
        return self.ranges[bisect_right(self.ranges, (address, 1024)) - 1][1]

    @property
    def shards(self) -> list[int]:
        return sorted(shard for _, shard in self.ranges)

    def signed(self, difference: int) -> int:
        """Of two tallies, which count modulo their limit."""
        tallies = self.limits["tallies"]
        return (difference + tallies // 2) % tallies - tallies // 2


LIMITS = {
    "amount": 2**63 - 1,
    "waiting": 32768,
    "due": 4096,
    "uncovered": 1024,
    "hashed": 2048,
    "records": 4096,
    "payload": 2**20,
    "tallies": 2**64,
    "part": 4096,
}
VECTORS = Network(
    unhex(EPOCH["network_id"]),
    EPOCH["genesis"]["parameters"],
    [(unhex(committee["first"]), committee["shard"]) for committee in EPOCH["document"]["fields"]["committees"]],
    {asset["code"]: address_of(unhex(asset["issuer"])) for asset in EPOCH["genesis"]["assets"]},
    {asset["code"]: (asset["fee"], asset["smallest_balance"]) for asset in EPOCH["genesis"]["assets"]},
    LIMITS,
)


NO_CHANGE: list[Any] = [1, 1, bytes(32), b"", 0, 0, [], 0, 0, [], None, None]
"""What every shard begins an epoch with (section 20)."""


class Invalid(ValueError):
    """The block, or the transaction, breaks a rule."""


def expect(holds: bool, rule: str) -> None:
    if not holds:
        raise Invalid(rule)


def read(encoded: bytes) -> tuple[bytes, list[Any], list[Any]]:
    """A transaction's id, order and witnesses. Raises Invalid when it breaks a static rule (section 3)."""
    order, witnesses = msgpack.unpackb(encoded)
    _, legs, memo, _, salt = order
    expect(len(encoded) <= 4096 and msgpack.packb([order, witnesses]) == encoded, "encoding")
    expect(1 <= len(legs) <= 16 and len(memo.encode()) <= 140 and len(salt) == 8, "bounds")
    expect(all(leg[0] != leg[1] and (leg[3] > 0) == (leg[4] == 0) for leg in legs), "legs")
    payers = list(dict.fromkeys(leg[0] for leg in legs))
    expect([address_of(public) for public, _ in witnesses] == payers, "one witness of each payer, in order")
    return digest("transaction", order), order, witnesses


def boundary(number: int, asset: str) -> bytes:
    return number.to_bytes(20, "big") + asset.encode() + b"f"


def replay_key(shard: int, slot: int, part: int) -> bytes:
    return shard.to_bytes(8, "big") + slot.to_bytes(8, "big") + part.to_bytes(4, "big") + b"r"


def pair(teller: int, shard: int) -> bytes:
    return teller.to_bytes(10, "big") + shard.to_bytes(10, "big")


class Ledger:
    """The rows of one shard, and what a block does to them. ``time``, ``receipts``, ``changes``: of the last one. ``seen``: the
    slot of each id in the replay set, or that was."""

    def __init__(self, shard: int, network: Network = VECTORS, time: int = 0) -> None:
        self.shard, self.network, self.time = shard, network, time
        self.rows: dict[bytes, Any] = {}
        self.state, self.root, self.certified = bytes(32), bytes(32), bytes(32)
        self.checkpoint, self.written = self.gap(0, 0), set[bytes]()
        self.seen: dict[bytes, int] = {}
        self.receipts: list[Any] = []
        self.changes: Any = None
        self.change = list(NO_CHANGE)

    def execute(
        self, height: int, time: int, bundles: list[Any], transactions: list[bytes], entries: Sequence[bytes] = ()
    ) -> tuple[list[bytes], Any]:
        """The six roots, in the header's order, and the bundles sent. Raises Invalid."""
        expect(time >= self.time, "time goes on")
        self.time, self.receipts, self.outbox = time, [], defaultdict[int, list[Any]](list)
        self.touched, self.before = set[bytes](), dict(self.rows)
        if self.is_closed:
            expect(not (bundles or transactions or entries), "nothing after the closing block")
        else:
            self.work(bundles, transactions)
            self.go_on_changing(height, transactions, entries)
            self.tell()
            self.note(transactions)
        sent = [[self.shard, to, self.count(to, b"s"), self.outbox[to]] for to in sorted(self.outbox)]
        self.commit(height)
        return [
            root(list(map(msgpack.packb, self.receipts))),
            root(list(map(msgpack.packb, sent))),
            digest("changes", self.changes),
            digest("totals", self.totals()),
            digest("change", self.change),
            self.state,
        ], sent

    def work(self, bundles: list[Any], transactions: list[bytes]) -> None:
        for source, destination, number, records in bundles:
            expect(destination == self.shard != source and source in self.network.shards, "a bundle's channel")
            expect(number == self.count(source, b"c"), "bundles in sequence")
            for record in records:
                if record[0] < 5:
                    (self.prepare, self.count_vote, self.obey, self.hear)[record[0] - 1](source, *record[1:])
                else:
                    self.hear_of_change(source, *record)
        self.look_again()
        self.wake()
        for encoded in transactions:
            self.include(encoded)

    def commit(self, height: int) -> None:
        """What is written joins the state (section 7)."""
        written = [(key, self.rows.get(key)) for key in sorted(self.touched)]
        balances = [[k[:20], k[20:].decode(), row or [0, 0, False]] for k, row in written if not k[-1:].islower()]
        records = [[key, row] for key, row in written if key[-1:].islower()]
        self.changes = [balances, digest("records", records)]
        self.written |= self.touched
        commitment = [self.certified, self.root] if height == self.checkpoint else []
        self.state = digest("state", self.state, digest("changes", self.changes), *commitment)
        if height == self.checkpoint:
            self.certified = self.state
            self.root, self.checkpoint = tree(self.rows), height + self.gap(height, len(self.written))
            self.written = set()

    # -- the change of epochs, in which this ledger takes no part ---------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return False

    @property
    def is_settled(self) -> bool:
        return False

    def hear_of_change(self, source: int, kind: int, *fields: Any) -> None:
        """Records 5 to 10."""

    def go_on_changing(self, height: int, transactions: list[bytes], entries: Sequence[bytes]) -> None:
        expect(not entries, "no entries")

    # -- rows ------------------------------------------------------------------------------------------------------

    def gap(self, height: int, written: int) -> int:
        """Blocks from a checkpoint to the next one."""
        interval: int = self.network.parameters["checkpoint_interval"]
        return interval * max(1, -(-written // (interval * self.network.limits["hashed"])))

    def put(self, key: bytes, row: Any) -> None:
        self.touched.add(key)
        self.rows[key] = row
        if row is None or (isinstance(row, list) and not any(row)):
            del self.rows[key]

    def move(self, key: bytes, *by: int) -> None:
        """Add to a balance (available, held) or to a flow (entered, left, entering, leaving)."""
        row = self.rows.get(key, [0, 0, False] if len(by) == 2 else [0, 0, 0, 0])
        moved = [value + more for value, more in zip(row, by, strict=False)]
        if len(by) == 4:
            moved[:2] = [count % self.network.limits["tallies"] for count in moved[:2]]
        assert min(moved) >= 0, "nothing is owed that was not there"
        self.put(key, moved + row[len(by) :])

    def count(self, shard: int, kind: bytes) -> int:
        key = shard.to_bytes(20, "big") + kind
        self.put(key, self.rows.get(key, 0) + 1)
        return int(self.rows[key])

    def undecided(self) -> list[bytes]:
        return [key for key in self.rows if key[-1:] in (b"w", b"p")]

    def totals(self) -> list[Any]:
        found: list[Any] = []
        for asset in sorted(self.network.issuers):
            balances = [row for key, row in self.rows.items() if key[20:] == asset.encode()]
            flows = {int.from_bytes(k[:20], "big"): row for k, row in self.rows.items() if k[20:] == asset.encode() + b"f"}
            issued = flows.pop(0, [0, 0])[:2]
            carried = self.rows.get(bytes(20) + asset.encode() + b"o", 0)
            figures = [sum(row[0] for row in balances), sum(row[1] for row in balances), *issued, carried]
            peers = [[boundary - 1, row[1], row[0]] for boundary, row in sorted(flows.items()) if row[0] or row[1]]
            found += [[asset, *figures, peers]] if any(figures) or peers else []
        return [found, len(self.undecided())]

    # -- legs ------------------------------------------------------------------------------------------------------

    def shards_of(self, legs: list[Any]) -> set[int]:
        return {self.network.shard_of(address) for leg in legs for address in leg[:2]}

    def legs_here(self, legs: list[Any], home: int) -> list[Any]:
        """In the home shard also the payments that pass through."""
        ends = [(leg, self.shards_of([leg])) for leg in legs]
        return [leg for leg, s in ends if self.shard in s or (home == self.shard and len(s) == 2 and leg[4] == 0)]

    def needs(self, legs: list[Any]) -> tuple[dict[bytes, int], dict[bytes, list[int]]]:
        """What accounts here owe, and what they are to mint and burn."""
        owed, issues = defaultdict[bytes, int](int), defaultdict[bytes, list[int]](lambda: [0, 0])
        for payer, payee, asset, amount, action in legs:
            if action or self.network.shard_of(payer) != self.shard:
                continue
            if payer == self.network.issuers[asset]:
                issues[boundary(0, asset)][0] += amount
                continue
            owed[payer + asset.encode()] += amount
            if payee == self.network.issuers[asset] and self.network.shard_of(payee) == self.shard:
                issues[boundary(0, asset)][1] += amount
        return owed, issues

    def refusal(self, legs: list[Any]) -> str:
        for payer, payee, asset, _, action in legs:
            if asset not in self.network.issuers:
                return "unknown_asset"
            if action and payer != self.network.issuers[asset]:
                return "not_issuer"
            for address in () if action else (payer, payee):
                row = self.rows.get(address + asset.encode())
                if row and row[2] and self.network.shard_of(address) == self.shard:
                    return "account_frozen"
        owed, issues = self.needs(legs)
        left = {key: self.rows.get(key, [0])[0] - amount for key, amount in owed.items()}
        if any(amount < 0 for amount in left.values()):
            return "insufficient_funds"
        if any(0 < amount < self.network.terms[key[20:].decode()][1] for key, amount in left.items()):
            return "below_smallest_balance"
        return "" if all(self.may_issue(key[20:-1], *amounts) for key, amounts in issues.items()) else "limit_exceeded"

    def may_issue(self, asset: bytes, minting: int, burning: int) -> bool:
        row = self.rows.get(boundary(0, asset.decode()), [0, 0, 0, 0])
        issued = self.network.signed(row[0] - row[1]) + row[2]
        fits = issued + minting <= self.network.limits["amount"] and row[3] + burning <= issued
        return fits and self.may_hold(asset, minting)

    def may_hold(self, asset: bytes, entering: int) -> bool:
        here = sum(row[0] + row[1] for key, row in self.rows.items() if key[20:] == asset)
        here += sum(row[2] for key, row in self.rows.items() if key[20:] == asset + b"f")
        return bool(here + entering <= self.network.limits["amount"])

    def reserve(self, legs: list[Any]) -> str:
        code = self.refusal(legs)
        if code == "":
            owed, issues = self.needs(legs)
            for key, amount in owed.items():
                self.move(key, -amount, amount)
            for key, (minting, burning) in issues.items():
                self.move(key, 0, 0, minting, burning)
        return code

    def release(self, legs: list[Any]) -> None:
        owed, issues = self.needs(legs)
        for key, amount in owed.items():
            self.move(key, amount, -amount)
        for key, (minting, burning) in issues.items():
            self.move(key, 0, 0, -minting, -burning)

    def apply(self, legs: list[Any], home: int) -> None:
        here = self.shard
        for payer, payee, asset, amount, action in legs:
            paid, received, issuer = payer + asset.encode(), payee + asset.encode(), self.network.issuers[asset]
            source, sink = self.network.shard_of(payer), self.network.shard_of(payee)
            if action:
                if sink == here:
                    self.put(received, [*self.rows.get(received, [0, 0])[:2], action == 1])
                continue
            if source != here:
                self.move(boundary((source if home == here else home) + 1, asset), amount, 0, 0, 0)
            elif payer == issuer:
                self.move(boundary(0, asset), amount, 0, -amount, 0)
            else:
                self.move(paid, 0, -amount)
            if sink != here:
                self.move(boundary((sink if home == here else home) + 1, asset), 0, amount, 0, 0)
            elif payee == issuer:
                self.move(boundary(0, asset), 0, amount, 0, -amount if source == here else 0)
            else:
                self.move(received, amount, 0)

    # -- what others can have --------------------------------------------------------------------------------------

    def incoming(self, legs: list[Any]) -> list[Any]:
        return [leg for leg in legs if leg[4] == 0 and self.network.shard_of(leg[0]) != self.shard]

    def covers(self, legs: list[Any], home: int) -> bool:
        """Whether what enters can be its sender's, and be taken in."""
        sent = defaultdict[tuple[int, str], int](int)
        entering, burning = defaultdict[str, int](int), defaultdict[str, int](int)
        for payer, payee, asset, amount, _ in self.incoming(legs):
            sent[self.network.shard_of(payer) if home == self.shard else home, asset] += amount
            entering[asset] += amount
            if payee == self.network.issuers[asset] and self.network.shard_of(payee) == self.shard:
                burning[asset] += amount
        fits = all(self.may_hold(asset.encode(), amount) for asset, amount in entering.items())
        may_burn = all(self.may_issue(asset.encode(), 0, amount) for asset, amount in burning.items())
        return fits and may_burn and all(amount <= self.room(sender, asset) for (sender, asset), amount in sent.items())

    def room(self, sender: int, asset: str) -> int:
        if self.network.shard_of(self.network.issuers[asset]) == sender:
            return self.network.limits["amount"]
        row, code = self.rows.get(boundary(sender + 1, asset), [0, 0]), asset.encode()
        others = [other for other in self.network.shards if other not in (sender, self.shard)]
        said = [self.rows.get(pair(teller, sender) + code + b"g", 0) for teller in (*others, self.shard)]
        return self.network.signed(row[1] - row[0] + int(sum(said)))

    def hear(self, source: int, figures: list[Any]) -> None:
        for shard, asset, units in figures:
            if asset in self.network.issuers and shard in self.network.shards and shard not in (source, self.shard):
                self.touched.add(key := pair(source, shard) + asset.encode() + b"g")
                self.rows[key] = units
                if not units:
                    del self.rows[key]

    def tell(self) -> None:
        others = [shard for shard in self.network.shards if shard != self.shard]
        key = bytes(20) + b"t"
        time, told = self.rows.get(key, [-250, []])
        if len(others) < 2 or self.time < time + 250:
            return
        rows = [(shard, asset, self.rows.get(boundary(shard + 1, asset))) for shard in others for asset in self.network.issuers]
        now = sorted(
            [shard, asset, units] for shard, asset, row in rows if row and (units := self.network.signed(row[1] - row[0]))
        )
        even = [[shard, asset, 0] for shard, asset, _ in told if [shard, asset] not in [figure[:2] for figure in now]]
        changed = sorted(figure for figure in now + even if figure not in told)
        for shard in others if changed else ():
            if figures := [figure for figure in changed if figure[0] != shard]:
                self.outbox[shard].append([4, figures])
        if changed:
            self.put(key, [self.time, now])

    def look_again(self) -> None:
        """In the order of homes, deadlines and ids."""
        waits = sorted(
            (self.shard, row[1], key) if key[-1:] == b"w" else (row[1], row[2], key)
            for key, row in self.rows.items()
            if (key[-1:] == b"w" and not row[3]) or (key[-1:] == b"p" and row[3] != 2)
        )
        for home in sorted({home for home, _, _ in waits}):
            for _, _, key in [wait for wait in waits if wait[0] == home][: self.network.limits["uncovered"]]:
                self.go_on(key, home)

    def breach(self, legs: list[Any]) -> str:
        """What the genesis asks of the legs (section 3)."""
        codes = ["", ""]
        for asset, (fee, smallest) in self.network.terms.items():
            issuer = self.network.issuers[asset]
            paid = [(leg[0], leg[1], leg[3]) for leg in legs if leg[2] == asset and leg[4] == 0]
            payments = sum(issuer not in (payer, payee) for payer, payee, _ in paid)
            if fee * payments > sum(amount for _, payee, amount in paid if payee == issuer):
                codes[0] = "fee_missing"
            if any(amount < smallest for _, payee, amount in paid if payee != issuer):
                codes[1] = "below_smallest_balance"
        return next(filter(None, codes), "")

    def is_funded(self, legs: list[Any], rows: dict[bytes, Any]) -> bool:
        """Whether each payer kept here is an issuer, or holds something in ``rows``."""
        payers = {leg[0] for leg in legs if self.network.shard_of(leg[0]) == self.shard}
        for payer in payers - set(self.network.issuers.values()):
            balances = [rows.get(payer + asset.encode(), [0, 0]) for asset in self.network.issuers]
            if not any(row[0] or row[1] for row in balances):
                return False
        return True

    # -- the home shard --------------------------------------------------------------------------------------------

    def include(self, encoded: bytes) -> None:
        transaction_id, order, witnesses = read(encoded)
        network, legs, _, valid_until, _ = order
        expect(network == self.network.orders, "the network")
        expect(self.network.shard_of(legs[0][0]) == self.shard, "the home shard")
        expect(self.time <= valid_until <= self.time + self.network.parameters["validity_window"], "the time")
        expect(transaction_id not in self.seen, "included once")
        expect(self.breach(legs) == "", "fees and smallest balances")
        expect(self.is_funded(legs, self.rows) or self.is_funded(legs, self.before), "payers that hold something")
        expect(self.are_signed(transaction_id, witnesses), "signatures")
        self.seen[transaction_id] = valid_until // 1024
        others = sorted(self.shards_of(legs) - {self.shard})
        queues = [row[2] for key, row in self.rows.items() if key[-1:] == b"w"]
        queue = [other for other in queues if other == others or len(other) > 1 < len(others)]
        is_full = len(queue) >= self.network.limits["waiting"]
        if code := "limit_exceeded" if is_full else self.reserve(legs):
            self.receipts.append([transaction_id, 3, code])
        elif others:
            deadline = self.time + self.network.parameters["commit_timeout"]
            self.put(transaction_id + b"w", [self.legs_here(legs, self.shard), deadline, others, others])
            for shard in others:
                self.outbox[shard].append([1, encoded, deadline])
            self.receipts.append([transaction_id, 1, ""])
        else:
            self.apply(legs, self.shard)
            self.receipts.append([transaction_id, 2, ""])

    def are_signed(self, transaction_id: bytes, witnesses: list[Any]) -> bool:
        return all(self.network.verify(public, transaction_id, signature) for public, signature in witnesses)

    def count_vote(self, source: int, transaction_id: bytes, code: str) -> None:
        legs, deadline, participants, awaiting = self.rows.get(transaction_id + b"w", [0, 0, 0, []])
        if source not in awaiting:
            return
        others = [shard for shard in awaiting if shard != source]
        if code or (not others and self.covers(legs, self.shard)):
            self.decide(transaction_id, code, source)
        else:
            self.put(transaction_id + b"w", [legs, deadline, participants, others])

    def decide(self, transaction_id: bytes, code: str, refused_by: int | None = None) -> None:
        legs, _, participants, _ = self.rows[transaction_id + b"w"]
        if code:
            self.release(legs)
        else:
            self.apply(legs, self.shard)
        for shard in participants:
            if not code or shard != refused_by:
                self.outbox[shard].append([3, transaction_id, not code])
        self.put(transaction_id + b"w", None)
        self.receipts.append([transaction_id, 4 if code == "expired" else 3 if code else 2, code])

    def note(self, transactions: list[bytes]) -> None:
        """The replay set's rows."""
        for transaction_id, order, _ in map(read, transactions):
            slot, part = order[3] // 1024, 0
            while self.rows.get(key := replay_key(self.shard, slot, part), [0])[0] == self.network.limits["part"]:
                part += 1
            count, chain = self.rows.get(key, [0, bytes(32)])
            self.put(key, [count + 1, digest("replay", chain, transaction_id)])

    def wake(self) -> None:
        times = [(row[1] if key[-1:] == b"w" else row, key) for key, row in self.rows.items() if key[32:] in (b"w", b"a")]
        times += [(1024 * int.from_bytes(key[8:16], "big") + 1023, key) for key in self.rows if key[-1:] == b"r"]
        for _, key in sorted(due for due in times if due[0] < self.time)[: self.network.limits["due"]]:
            if key[-1:] == b"w":
                self.decide(key[:-1], "expired")
            else:
                self.put(key, None)

    # -- a participant ---------------------------------------------------------------------------------------------

    def prepare(self, source: int, encoded: bytes, deadline: int) -> None:
        try:
            transaction_id, order, witnesses = read(encoded)
        except Invalid:
            self.outbox[source].append([2, digest("transaction", msgpack.unpackb(encoded)[0]), "malformed"])
            return
        except ValueError:  # not even of a transaction's form
            return
        legs, here = order[1], self.legs_here(order[1], source)
        issued = [leg[0] for leg in here if leg[0] == self.network.issuers.get(leg[2])]
        checked = {*issued, *(leg[0] for leg in here if self.network.shard_of(leg[0]) != source)}
        relied = [witness for witness in witnesses if address_of(witness[0]) in checked]
        code = self.objection(source, transaction_id, order, deadline)
        if not code and not self.are_signed(transaction_id, relied):
            code = "bad_signature"
        code = code or self.reserve(legs)
        sent = not code and self.is_sent(here, source)
        waiting = [row for key, row in self.rows.items() if key[-1:] == b"p" and row[1] == source and row[3] != 2]
        if not code and not sent and len(waiting) >= self.network.limits["uncovered"]:
            self.release(legs)
            code = "limit_exceeded"
        if not code:
            self.put(transaction_id + b"p", [here, source, deadline, 2 if sent else 1])
            if relied:
                self.put(transaction_id + b"a", order[3] + self.network.parameters["commit_timeout"])
        if code or sent:
            self.outbox[source].append([2, transaction_id, code])

    def is_sent(self, legs: list[Any], home: int) -> bool:
        return self.covers([leg for leg in legs if self.network.shard_of(leg[0]) == home], home)

    def go_on(self, key: bytes, home: int) -> None:
        row, transaction_id = self.rows[key], key[:-1]
        if key[-1:] == b"w":
            if self.covers(row[0], home):
                self.decide(transaction_id, "")
        elif row[3] == 3:
            if self.covers(row[0], home):
                self.end(transaction_id, 2)
        elif self.time > row[2]:
            self.release(row[0])
            self.put(key, None)
            self.outbox[home].append([2, transaction_id, "expired"])
        elif self.is_sent(row[0], home):
            self.put(key, [*row[:3], 2])
            self.outbox[home].append([2, transaction_id, ""])

    def end(self, transaction_id: bytes, outcome: int) -> None:
        legs, home, *_ = self.rows[transaction_id + b"p"]
        if outcome == 2:
            self.apply(legs, home)
        else:
            self.release(legs)
        self.put(transaction_id + b"p", None)
        self.receipts.append([transaction_id, outcome, ""])

    def objection(self, source: int, transaction_id: bytes, order: list[Any], deadline: int) -> str:
        network, legs, _, valid_until, _ = order
        timeout, window = self.network.parameters["commit_timeout"], self.network.parameters["validity_window"]
        if network != self.network.orders:
            return "wrong_network"
        if self.network.shard_of(legs[0][0]) != source or not self.legs_here(legs, source):
            return "wrong_shard"
        if code := self.breach(legs):
            return code
        if self.time > deadline or deadline > valid_until + timeout or self.is_settled:
            return "expired"
        prepared = sum(key[-1:] == b"p" and row[1] == source for key, row in self.rows.items())
        if valid_until > self.time + window + timeout or prepared >= 2 * self.network.limits["waiting"]:
            return "limit_exceeded"
        return "duplicate" if {transaction_id + b"p", transaction_id + b"a"} & self.rows.keys() else ""

    def obey(self, source: int, transaction_id: bytes, commit: bool) -> None:
        legs, home, deadline, stage = self.rows.get(transaction_id + b"p", [[], None, 0, 0])
        if home != source:
            return
        if not commit and stage != 3:
            self.end(transaction_id, 3)
        elif commit and stage == 2 and self.covers(legs, home):
            self.end(transaction_id, 2)
        elif commit and stage == 2:
            owed = self.incoming(legs)
            self.apply([leg for leg in legs if leg not in owed], home)
            self.put(transaction_id + b"p", [owed, home, deadline, 3])
