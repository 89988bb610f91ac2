"""The load: funded accounts, transactions signed beforehand, and a closed loop that keeps a number of them in flight."""

import math
import os
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

from node.protocol.address import address_of
from node.protocol.block import Outcome, Receipt
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_LEGS
from node.protocol.transaction import Leg, Order
from scripts.benchmark.client import LoadClient

ASSET = "USD"
LIFETIME = 300_000
STALL_SECONDS = 30.0
RESEND_SECONDS = 2.0
"""Time without a receipt after which what is under way is sent again: it may be lost, or nobody may have listened yet."""


class BenchError(Exception):
    """The measurement cannot go on; the text says why."""


class Signed(Struct, frozen=True, gc=False):
    """A transaction ready to send. ``addresses``: that it touches, the first payer's first."""

    id: bytes
    addresses: tuple[bytes, ...]
    encoded: bytes


class UnderWay(Struct, gc=False):
    """A transaction under way: when it was first sent (monotonic), and in how many shards it is final."""

    payment: Signed
    sent: float
    final: int = 0


class Sample(Struct):
    """What a phase of load saw. Latencies in seconds, from publishing to the receipt of the last shard involved.

    Fields:
        seconds, committed: in the time that counts.
        done: committed in all; ``cross``: of them, those that touch two shards.
    """

    seconds: float
    committed: int
    done: int
    cross: int
    intra_latencies: list[float]
    cross_latencies: list[float]
    failed: Counter[str]


class Payers:
    """Key pairs by shard."""

    def __init__(self, client: LoadClient, per_shard: int, seed: int) -> None:
        chance = random.Random(seed)
        self._client = client
        self.by_shard: dict[int, list[KeyPair]] = {shard: [] for shard in client.document.electorates}
        while any(len(keys) < per_shard for keys in self.by_shard.values()):
            key = KeyPair(chance.randbytes(32))
            keys = self.by_shard[client.document.shards.shard_of(address_of(key.public))]
            if len(keys) < per_shard:
                keys.append(key)

    def fund(self, issuer: KeyPair, asset: str, amount: int) -> None:
        """Mint to every account, sixteen in a transaction, and wait until all have it.

        Raises:
            BenchError: it does not happen.
        """
        payees = [address_of(key.public) for keys in self.by_shard.values() for key in keys]
        source = address_of(issuer.public)
        signed = []
        for start in range(0, len(payees), MAX_LEGS):
            legs = tuple(Leg(source, payee, asset, amount) for payee in payees[start : start + MAX_LEGS])
            signed.append(_sign(self._client, legs, issuer))
        sample = run_load(self._client, signed, in_flight=64)
        if sample.committed != len(signed):
            raise BenchError(f"accounts could not be funded: {dict(sample.failed)}")

    def payments(self, count: int, cross: float, asset: str) -> list[Signed]:
        """Payments of one unit between random accounts; a share ``cross`` of them to another shard."""
        shards = sorted(self.by_shard)
        made = []
        for i in range(count):
            home = shards[i % len(shards)]
            there = random.choice([s for s in shards if s != home]) if len(shards) > 1 and random.random() < cross else home
            payer = random.choice(self.by_shard[home])
            payee = random.choice([key for key in random.sample(self.by_shard[there], 2) if key is not payer])
            leg = Leg(address_of(payer.public), address_of(payee.public), asset, 1)
            made.append(_sign(self._client, (leg,), payer))
        return made


def _sign(client: LoadClient, legs: tuple[Leg, ...], key: KeyPair) -> Signed:
    valid_until = time.time_ns() // 1_000_000 + LIFETIME
    order = Order(client.document.network_id, legs, "", valid_until, os.urandom(8))
    addresses = dict.fromkeys(address for leg in legs for address in (leg.payer, leg.payee))
    return Signed(order.id, tuple(addresses), encode(order.sign([key])))


def run_load(client: LoadClient, payments: Sequence[Signed], in_flight: int, seconds: float = math.inf) -> Sample:
    """Keep ``in_flight`` transactions under way for some time, or until there are none left; then wait for the rest.

    If the time is limited, it counts from when as many have been decided: before, the network only fills up. It ends with the
    last commit in it: they come in blocks, and a part of the time between two would count for nothing.

    Raises:
        BenchError: nothing moves for half a minute.
        ClientError: the broker is gone.
    """
    return _Load(client, payments, in_flight, seconds).run()


class _Load:
    def __init__(self, client: LoadClient, payments: Sequence[Signed], in_flight: int, seconds: float) -> None:
        self._client, self._in_flight, self._seconds = client, in_flight, seconds
        self._queue = deque(payments)
        self._waiting: dict[bytes, UnderWay] = {}
        self._sample = Sample(0.0, 0, 0, 0, [], [], Counter())
        self._filling = 0 if seconds == math.inf else in_flight
        """Decisions to go until the time counts."""
        self._moved = self._sent = self._began = self._last = time.monotonic()

    def run(self) -> Sample:
        while self._waiting or (self._queue and not self._is_over(time.monotonic())):
            self._refill()
            self._take(self._client.receipts(0.05))
            self._look_after_the_rest()
        self._sample.seconds = self._last - self._began
        return self._sample

    def _is_over(self, now: float) -> bool:
        return self._filling <= 0 and now > self._began + self._seconds

    def _refill(self) -> None:
        room = self._in_flight - len(self._waiting)
        now = time.monotonic()
        if self._queue and room >= self._in_flight / 10 and not self._is_over(now):
            due = [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
            self._sent = now
            self._waiting |= {payment.id: UnderWay(payment, now) for payment in due}
            send(self._client, due)

    def _take(self, receipts: Iterable[tuple[Chain, Receipt]]) -> None:
        now, decided, committed = time.monotonic(), 0, 0
        for chain, receipt in receipts:
            entry = self._waiting.get(receipt.transaction_id)
            if entry is None:
                continue
            self._moved = now
            entry.final += 1
            failed = receipt.outcome is not Outcome.COMMITTED
            shards = self._client.touched(chain.epoch, entry.payment.addresses)
            if failed or entry.final == shards:
                del self._waiting[receipt.transaction_id]
                decided += 1
            if failed:
                self._sample.failed[str(receipt.code)] += 1
            elif entry.final == shards:
                committed += 1
                self._count(entry, now, shards > 1)
        if self._filling > 0:
            self._filling -= decided
            self._began = self._last = now
        elif committed and not self._is_over(now):
            self._sample.committed += committed
            self._last = now

    def _count(self, entry: UnderWay, now: float, crossing: bool) -> None:
        self._sample.done += 1
        self._sample.cross += crossing
        (self._sample.cross_latencies if crossing else self._sample.intra_latencies).append(now - entry.sent)

    def _look_after_the_rest(self) -> None:
        """What has been under way for long may be lost, or nobody listened yet."""
        now = time.monotonic()
        if self._waiting and now - max(self._moved, self._sent) > RESEND_SECONDS:
            self._sent = now
            send(self._client, [entry.payment for entry in self._waiting.values()])
        if self._waiting and now - self._moved > STALL_SECONDS:
            raise BenchError(f"{len(self._waiting)} transactions are not decided for {STALL_SECONDS:.0f} s")


def run_trickle(client: LoadClient, payments: Sequence[Signed], per_second: float) -> Sample:
    """Send one at a time at a steady, low rate: latency without queues."""
    began = time.monotonic()
    total = Sample(0.0, 0, 0, 0, [], [], Counter())
    for i, payment in enumerate(payments):
        due = began + i / per_second
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        sample = run_load(client, [payment], 1)
        total.committed += sample.committed
        total.done += sample.done
        total.cross += sample.cross
        total.intra_latencies += sample.intra_latencies
        total.cross_latencies += sample.cross_latencies
        total.failed += sample.failed
    total.seconds = time.monotonic() - began
    return total


def send(client: LoadClient, payments: Iterable[Signed]) -> None:
    """To their home shards, without waiting for anything. Raises ClientError."""
    by_home: defaultdict[Chain, list[bytes]] = defaultdict(list)
    for payment in payments:
        by_home[client.home_of(payment.addresses[0])].append(payment.encoded)
    for home, encoded in by_home.items():
        client.send(home, encoded)


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value below which ``share`` of them lie; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
