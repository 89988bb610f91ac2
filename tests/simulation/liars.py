"""What one bad member of four costs a shard: ``python -m tests.simulation.liars``.

Real replicas in virtual time under an open load of payments, the same for each kind of fault: a warm-up in which the others find
out, then the time that counts. Only consensus is at fault here: disks take no time, and signatures are taken for valid.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from statistics import quantiles
from typing import Any

from msgspec import Struct, structs

from node.effects import Broadcast, CheckSignatures, Commit, Effect, Send, SendBlocks
from node.events import Instant, Recovered
from node.ledger.state import State
from node.protocol.certificate import CertifiedBlock, FinalBlock, VoteKind
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.messages import Ballot, BodyReply, ChainReply, PeerMessage, Proposal, TransactionsReply
from node.replica.replica import Replica
from tests.chains import TIME, Network
from tests.simulation.loop import Loop

LIAR = 1
_PAYERS = 20
_STANDARD: dict[str, Any] = {"view_timeout": 2_000, "heartbeat": 1_000, "block_interval": 50, "validity_window": 600_000}


class Sent(Struct, frozen=True):
    """A message on its way to one member, after ``delay`` ms of its sender's own will."""

    to: int
    message: PeerMessage
    delay: int = 0


Fault = Callable[["Committee", Sent], Sequence[Sent]]
"""What the bad member sends instead of a message to one of the others."""


def mute(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Votes, and never proposes."""
    return [] if isinstance(sent.message, Proposal) else [sent]


def slow(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Proposes just before the others' time is over."""
    return [structs.replace(sent, delay=1_900)] if isinstance(sent.message, Proposal) else [sent]


def sly(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Proposes just so early that it is not late."""
    return [structs.replace(sent, delay=180)] if isinstance(sent.message, Proposal) else [sent]


def invalid(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Proposes what does not execute."""
    message = sent.message
    if not isinstance(message, Proposal):
        return [sent]
    header = structs.replace(message.block.header, state_root=ZERO_HASH)
    vote = committee.members[LIAR].seat.vote(VoteKind.NOTARIZE, header.view, header.hash)
    return [
        structs.replace(sent, message=structs.replace(message, block=structs.replace(message.block, header=header), vote=vote))
    ]


def mute_towards_some(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Proposes to one member only."""
    return [] if isinstance(sent.message, Proposal) and sent.to != 3 else [sent]


def withhold(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Neither proposes to the next leader nor gives it its votes in that view, nor bodies: so that it is late."""
    message = sent.message
    is_of_own_view = isinstance(message, Proposal | Ballot) and message.vote.view % 4 == LIAR
    return [] if sent.to == (LIAR + 1) % 4 and (is_of_own_view or isinstance(message, BodyReply | TransactionsReply)) else [sent]


def stingy(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Proposes what only it has, and gives it to nobody."""
    return [] if isinstance(sent.message, TransactionsReply) else [sent]


def tardy(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Proposes what only it has, in time, and gives it just before the others' time is over."""
    return [structs.replace(sent, delay=1_900)] if isinstance(sent.message, TransactionsReply) else [sent]


def frame(committee: "Committee", sent: Sent) -> Sequence[Sent]:
    """Votes to nullify the next leader's view with its vote in its own, in which it does not propose."""
    message = sent.message
    if isinstance(message, Proposal):
        return []
    if isinstance(message, Ballot) and message.vote.view % 4 == LIAR:
        nullify = committee.members[LIAR].seat.vote(VoteKind.NULLIFY, message.vote.view + 1, ZERO_HASH)
        return [sent, structs.replace(sent, message=Ballot(nullify))]
    return [sent]


FAULTS: dict[str, Fault | None] = {
    "all well": None,
    "dead": None,
    "amnesiac": None,
    "mute": mute,
    "slow": slow,
    "sly": sly,
    "invalid": invalid,
    "mute towards some": mute_towards_some,
    "withholding": withhold,
    "framing": frame,
    "stingy": stingy,
    "tardy": tardy,
}
_HOARDERS = ("stingy", "tardy")
"""Who has payments of its own in each block."""


class Figures(Struct):
    """Of the time that counts; ``learned`` of the warm-up: payments committed in it. Latencies in ms."""

    committed: int
    learned: int
    blocks: int
    p50: float
    p99: float


class Committee(Loop):
    """Four members; the one at fault is LIAR. ``rate``: payments a second. ``warm_up`` and ``counted``: ms."""

    def __init__(self, kind: str, rate: int, warm_up: int, counted: int, seed: int = 1) -> None:
        super().__init__()
        self._chance, self._fault, self._kind = Random(seed), FAULTS[kind], kind
        self._network = Network("liars", committees=1, terms={}, **_STANDARD)
        self._shard = self._network.shards[0]
        self._keys = self._shard.electorate.keys
        self._rate, self._warm_up, self._end = rate, warm_up, warm_up + counted
        self._submitted: dict[bytes, int] = {}
        self._latencies: list[int] = []
        self._learned = self._blocks = 0
        self._chains: dict[int, list[CertifiedBlock]] = {i: [] for i in range(4)}
        self._ticks: dict[int, int] = {}
        self._alive = [i for i in range(4) if kind != "dead" or i != LIAR]
        self.members = {i: self._member(i, kind != "amnesiac" or i != LIAR) for i in self._alive}

    def _member(self, index: int, has_votes: bool) -> Replica:
        recovered = Recovered(State.genesis(self._shard.rules), None, ())
        genesis, document = self._network.genesis, self._network.document
        return Replica(genesis, document, self._shard.members[index], f"member-{index}", recovered, self._at, has_votes)

    @property
    def _at(self) -> Instant:
        return Instant(self.time, TIME + self.time)

    def figures(self) -> Figures:
        for i in self._alive:
            self._do(i, self.members[i].start(self._at))
        for number in range(_PAYERS):
            self.after(number, lambda number=number: self._pay(self._network.issuers["USD"], number, 10**9))  # type: ignore[misc]
        for number in range((self._end - 1_000) * self._rate // 1_000):
            self.after(1_000 + number * 1_000 // self._rate, lambda number=number: self._pay_something(number))  # type: ignore[misc]
        self.run(self._end)
        counted = sorted(self._latencies)
        cuts = quantiles(counted, n=100) if len(counted) > 1 else [0.0] * 99
        return Figures(len(counted), self._learned, self._blocks, cuts[49], cuts[98])

    def _pay_something(self, number: int) -> None:
        payer = self._network.person(0, number % _PAYERS)
        self._pay(payer, number + 1, 1)
        if self._kind in _HOARDERS:
            hoarded = [
                encode(self._network.pay(payer, self._network.person(0, number + 1), 2, valid_until=TIME + self.time + 300_000))
            ]
            self._tell(LIAR, 0, lambda member, at: member.on_transactions(hoarded, at))

    def _pay(self, payer: KeyPair, number: int, amount: int) -> None:
        payment = self._network.pay(
            payer, self._network.person(0, number % _PAYERS), amount, valid_until=TIME + self.time + 300_000
        )
        self._submitted[payment.id] = self.time
        batch = [encode(payment)]
        for i in self._alive:
            self._tell(i, self._chance.randint(1, 4), lambda member, at: member.on_transactions(batch, at))

    # -- members ---------------------------------------------------------------------------------------------------

    def _tell(self, index: int, delay: int, event: Callable[[Replica, Instant], list[Effect]]) -> None:
        self.after(delay, lambda: self._do(index, event(self.members[index], self._at)))

    def _do(self, index: int, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Broadcast(message):
                    for other in range(4):
                        if other != index:
                            self._send(index, Sent(other, message))
                case Send(peer, message):
                    self._send(index, Sent(self._keys.index(peer), message))
                case CheckSignatures(token, transactions):
                    self._tell(index, 1, partial(_checked, token, [True] * len(transactions)))
                case SendBlocks(peer, first):
                    blocks = tuple(FinalBlock(b.block, b.finality) for b in self._chains[index][first - 1 : first + 49])
                    self._send(index, Sent(self._keys.index(peer), ChainReply(blocks)))
                case Commit():
                    self._commit(index, effect.block)
        self._sleep(index)

    def _send(self, index: int, sent: Sent) -> None:
        for one in self._fault(self, sent) if self._fault is not None and index == LIAR else (sent,):
            if one.to in self._alive:
                hear = partial(_hear, self._keys[index], one.message)
                self._tell(one.to, one.delay + self._chance.randint(2, 8), hear)

    def _sleep(self, index: int) -> None:
        due = max(self.time + 1, self.members[index].deadline)
        if not self.time < self._ticks.get(index, 0) <= due:
            self._ticks[index] = due
            self.after(due - self.time, lambda: self._wake(index, due))

    def _wake(self, index: int, due: int) -> None:
        if self._ticks[index] == due:
            self._ticks[index] = 0
            self._do(index, self.members[index].on_tick(self._at))

    def _commit(self, index: int, certified: CertifiedBlock) -> None:
        """A payment is there when the first honest member has it final."""
        self._chains[index].append(certified)
        if index == LIAR:
            return
        height = certified.block.header.height
        if max(len(chain) for i, chain in self._chains.items() if i not in (LIAR, index)) >= height:
            return
        self._blocks += self.time >= self._warm_up
        for receipt in certified.effects.receipts:
            submitted = self._submitted.pop(receipt.transaction_id, None)
            if submitted is not None and self.time < self._warm_up:
                self._learned += 1
            elif submitted is not None and submitted >= self._warm_up:
                self._latencies.append(self.time - submitted)


def _hear(peer: bytes, message: PeerMessage, member: Replica, at: Instant) -> list[Effect]:
    return member.on_message(peer, message, at)


def _checked(token: int, verdicts: Sequence[bool], member: Replica, at: Instant) -> list[Effect]:
    return member.on_signatures_checked(token, verdicts, at)


def main() -> None:
    parser = argparse.ArgumentParser(description="What one bad member of four costs a shard.")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--rate", type=int, default=40, help="payments a second (default %(default)s)")
    parser.add_argument("--warm-up", type=int, default=20, help="seconds (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=120, help="that count (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{'':18} committed  ratio  blocks  p50 ms  p99 ms  committed in the warm-up", flush=True)
    best = None
    for kind in options.kinds:
        found = Committee(kind, options.rate, options.warm_up * 1_000, options.seconds * 1_000, options.seed).figures()
        best = best or found
        ratio = found.committed / max(1, best.committed)
        latencies = f"{found.p50:6.0f}  {found.p99:6.0f}"
        print(f"{kind:18} {found.committed:9}  {ratio:5.3f}  {found.blocks:6}  {latencies}  {found.learned:9}", flush=True)


if __name__ == "__main__":
    main()
