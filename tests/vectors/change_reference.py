"""The second implementation of the change of epochs, from ``docs/epochs.md``, sections 2 and 4, and
``docs/protocol.md``, section 20.

A ledger that takes part in it: what the register writes down, phases, counts, fences, and the closing block.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import msgpack  # type: ignore[import-untyped]

from tests.vectors.assignment_reference import NoDocument, document_hash, next_document
from tests.vectors.reference import NO_CHANGE, Ledger, Network, digest, expect

MINING, SETTLING, SETTLED, CLOSED = 1, 2, 3, 4
REGISTRATION, REVEAL, HANDOFF, SETTLEMENT, OVER = 1, 2, 3, 4, 5
COUNT, LOAD, SETTLE, FENCE, DONE, RESOLUTION = 5, 6, 7, 8, 9, 10
"""Records."""
CHANGE_KEY = bytes(20) + b"u"
MOST = 4096
_HOST = r"(ip4/(?!0\.0\.0\.0/)|ip6/(?!::/)|dns[46]?/)[0-9A-Za-z.:-]+"
ADDRESS = re.compile(rf"/{_HOST}/tcp/[1-9][0-9]{{0,4}}")


class Register:
    """The fields of a register, in their order."""

    def __init__(self, since: int, not_before: int, called: bool = False, failures: int = 0, farewells: Iterable[bytes] = ()):
        self.phase, self.since, self.not_before, self.called, self.failures = REGISTRATION, since, not_before, called, failures
        self.registrations: dict[bytes, list[Any]] = {}
        self.farewells, self.ready, self.settled = set(farewells), set[bytes](), set[int]()
        self.secrets: dict[bytes, bytes] = {}
        self.loads: dict[int, int] = {}

    def plain(self) -> list[Any]:
        rows = [self.registrations[key] for key in sorted(self.registrations)]
        told = [[[key, some[key]] for key in sorted(some)] for some in (self.secrets, self.loads)]  # type: ignore[index]
        head = [self.phase, self.since, self.not_before, self.called, self.failures]
        return [*head, rows, sorted(self.farewells), *told, sorted(self.ready), sorted(self.settled)]

    def enter(self, phase: int, time: int) -> None:
        self.phase, self.since = phase, time


class ChangingLedger(Ledger):
    """``document``: of this epoch, as unpacked. ``time``: of the opening. ``coordinator``: its key."""

    def __init__(self, shard: int, network: Network, document: list[Any], coordinator: bytes, time: int) -> None:
        super().__init__(shard, network, time)
        self.label, self.epoch, self.document, self.coordinator, self.opened = *document[:2], document, coordinator, time
        self.hash = document_hash(document)
        self.committees = {number: [row[3] for row in rows] for number, _, rows in document[5]}
        self.others = [other for other in sorted(self.committees) if other != shard]
        self.home = min(self.committees)
        self.stage, self.attempt, self.next, self.cut = MINING, 1, bytes(32), b""
        self.counting_since, self.counted, self.fenced, self.closed = 0, 0, 0, 0
        self.fences: dict[int, int] = {}
        self.upper: list[Any] = []
        self.last_totals: Any = None
        self.register = Register(time, time + network.parameters["epoch_pause"])
        self.untouched = self.register.plain()
        self.prospect: list[Any] = []

    # -- what the block does ---------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return bool(self.closed)

    @property
    def is_settled(self) -> bool:
        return self.stage >= SETTLED

    @property
    def is_register(self) -> bool:
        return bool(self.shard == self.home)

    def work(self, bundles: list[Any], transactions: list[bytes]) -> None:
        self.may_begin = self.stage == MINING
        super().work(bundles, transactions)

    def include(self, encoded: bytes) -> None:
        legs = msgpack.unpackb(encoded)[0][1]
        expect(self.may_begin or self.shards_of(legs) == {self.shard}, "no payment across shards begins")
        super().include(encoded)

    def go_on_changing(self, height: int, transactions: list[bytes], entries: Sequence[bytes]) -> None:
        expect(not entries or (self.is_register and len(entries) <= 64), "entries only in the register")
        for encoded in entries:
            self.write_down(encoded)
        self.count_included(len(transactions))
        self.settle_down()
        if self.is_register:
            phase = self.register.phase
            self.end_phase()
            if self.register.phase != phase:
                self.settle_down()
        if self.stage == CLOSED:
            self.close(height)
        if self.plain() != self.change:
            self.change = self.plain()
            self.put(CHANGE_KEY, None if self.change == NO_CHANGE else self.change)

    def plain(self) -> list[Any]:
        fences = [[shard, self.fences[shard]] for shard in sorted(self.fences)]
        counting = [self.counting_since, self.counted]
        register = self.register.plain() if self.is_register else None
        said = None if register == self.untouched else register
        head = [self.stage, self.attempt, self.next, self.cut, *counting, fences, self.fenced]
        return [*head, self.closed, self.upper, self.last_totals, said]

    def tell_all(self, kind: int, *fields: Any) -> None:
        for other in self.others:
            self.outbox[other].append([kind, self.attempt, *fields])

    # -- any shard -------------------------------------------------------------------------------------------------

    def hear_of_change(self, source: int, kind: int, *fields: Any) -> None:
        attempt, rest = fields[0], fields[1:]
        if kind == FENCE:
            if self.stage != CLOSED and attempt >= self.attempt:
                self.fences[source] = attempt
        elif kind in (LOAD, DONE):
            if self.is_register and attempt == self.attempt:
                self.take_note(source, kind, *rest)
        elif source != self.home:
            return
        elif kind == RESOLUTION:
            (close,) = rest
            if self.stage in (SETTLING, SETTLED) and attempt == self.attempt and (not close or self.stage == SETTLED):
                self.resolve(close)
        elif self.stage == MINING and attempt >= self.attempt and not (kind == SETTLE and attempt == self.fenced):
            self.attempt = attempt
            if kind == SETTLE:
                self.begin_settling(*rest)
            else:
                self.counting_since, self.counted = self.time, 0

    def begin_settling(self, document: bytes, cut: bytes) -> None:
        self.stage, self.next, self.cut, self.counting_since, self.counted = SETTLING, document, cut, 0, 0

    def resolve(self, close: bool) -> None:
        if close:
            self.stage = CLOSED
        else:
            self.stage, self.next, self.cut, self.counting_since, self.counted = MINING, bytes(32), b"", 0, 0
            self.fences = {shard: attempt for shard, attempt in self.fences.items() if attempt > self.attempt}

    def count_included(self, transactions: int) -> None:
        if self.counting_since and self.time > self.counting_since:
            self.counted += transactions
            if self.time >= self.counting_since + 1000:
                self.report(LOAD, self.counted)
                self.counting_since = self.counted = 0

    def report(self, kind: int, *fields: Any) -> None:
        if self.is_register:
            self.take_note(self.shard, kind, *fields)
        else:
            self.outbox[self.home].append([kind, self.attempt, *fields])

    def settle_down(self) -> None:
        if self.stage == SETTLING and self.fenced != self.attempt and not any(key[-1:] == b"w" for key in self.rows):
            self.fenced = self.attempt
            self.tell_all(FENCE)
        are_fenced = all(self.fences.get(other) == self.attempt for other in self.others)
        is_prepared = any(key[-1:] == b"p" for key in self.rows)
        if self.stage == SETTLING and self.fenced == self.attempt and are_fenced and not is_prepared:
            self.stage = SETTLED
            self.report(DONE)

    def close(self, height: int) -> None:
        self.closed, self.last_totals = height, self.totals()
        for asset in sorted(self.network.issuers) if self.cut else ():
            rows = [row for key, row in self.rows.items() if key[20:] == asset.encode() and key[:20] >= self.cut]
            if units := sum(row[0] for row in rows):
                self.upper.append([asset, units])

    # -- the register: entries -------------------------------------------------------------------------------------

    def write_down(self, encoded: bytes) -> None:
        kind, *fields = msgpack.unpackb(encoded)
        expect(len(encoded) <= 2048 and msgpack.packb([kind, *fields]) == encoded, "an entry's encoding")
        (self.enrol, self.dismiss, self.disclose, self.be_ready, self.call)[kind - 1](*fields)

    def enrol(self, registration: list[Any]) -> None:
        network, epoch, attempt, public, _, addresses, nonce, _, signature = registration
        register = self.register
        expect(register.phase == REGISTRATION, "a registration in its phase")
        expect(public not in register.registrations and public not in register.farewells, "the first, of who has not left")
        expect([network, epoch, attempt] == [self.label, self.epoch + 1, self.attempt], "registered for this attempt")
        expect(self.has_room(register.registrations, public), "room")
        expect(all(ADDRESS.fullmatch(address) for address in addresses), "addresses that can be dialed")
        work = sha256(digest("identity puzzle", [network, epoch, self.hash, public]) + nonce).digest()
        bits = self.network.parameters["puzzle_difficulty_bits"]
        expect(int.from_bytes(work, "big") >> 256 - bits == 0, "the puzzle is solved")
        expect(self.network.verify(public, digest("registration", registration[:-1]), signature), "the node signed")
        register.registrations[public] = registration

    def dismiss(self, network: bytes, epoch: int, public: bytes, signature: bytes) -> None:
        register = self.register
        expect(register.phase != OVER and [network, epoch] == [self.label, self.epoch], "a farewell of this epoch")
        expect(public in register.registrations or public in self.members(), "a member's, or a registered node's")
        expect(public not in register.farewells and self.has_room(register.farewells, public), "the first")
        expect(self.network.verify(public, digest("farewell", [network, epoch]), signature), "the node signed")
        register.farewells.add(public)
        if register.phase == REGISTRATION:
            register.registrations.pop(public, None)

    def disclose(self, attempt: int, public: bytes, secret: bytes) -> None:
        register = self.register
        expect(register.phase == REVEAL and attempt == self.attempt, "a secret of this attempt in phase reveal")
        expect(public in register.registrations and public not in register.secrets, "of who is registered, once")
        expect(register.registrations[public][7] == digest("seat secret", secret), "the one committed to")
        register.secrets[public] = secret

    def be_ready(self, document: bytes, public: bytes, signature: bytes) -> None:
        register = self.register
        expect(register.phase == HANDOFF and public not in register.ready, "once, in phase handoff")
        expect(document == document_hash(self.prospect), "for the next document")
        expect(any(row[3] == public for _, _, rows in self.prospect[5] for row in rows), "its member")
        expect(self.network.verify(public, digest("readiness", document), signature), "the node signed")
        register.ready.add(public)

    def call(self, network: bytes, epoch: int, attempt: int, signature: bytes) -> None:
        register = self.register
        expect(register.phase == REGISTRATION and not register.called, "the first, in phase registration")
        expect([network, epoch, attempt] == [self.label, self.epoch, self.attempt], "of this attempt")
        statement = digest("call", [network, epoch, attempt])
        expect(self.network.verify(self.coordinator, statement, signature), "the coordinator signed")
        register.called = True

    def take_note(self, shard: int, kind: int, *fields: Any) -> None:
        register = self.register
        if kind == LOAD and register.phase == REVEAL:
            register.loads.setdefault(shard, fields[0])
        elif kind == DONE and register.phase == SETTLEMENT:
            register.settled.add(shard)

    def has_room(self, keys: Iterable[bytes], public: bytes) -> bool:
        members = self.members()
        return public in members or len(set(keys) - members) < MOST - len(members)

    def members(self) -> set[bytes]:
        return {key for keys in self.committees.values() for key in keys}

    # -- the register: phases --------------------------------------------------------------------------------------

    def end_phase(self) -> None:
        register, shards = self.register, len(self.committees)
        if register.phase == REGISTRATION and self.may_close_the_roll():
            register.enter(REVEAL, self.time)
            self.tell_all(COUNT)
            self.counting_since, self.counted = self.time, 0
        elif register.phase == REVEAL:
            if (len(register.secrets), len(register.loads)) == (len(register.registrations), shards) or self.is_late(
                "reveal_time"
            ):
                self.fix_the_document()
        elif register.phase == HANDOFF:
            seats = [[row[3] for row in rows] for _, _, rows in self.prospect[5]]
            if have_quorums(seats, register.ready):
                self.let_settle()
            elif self.is_late("handoff_time"):
                self.call_off()
        elif register.phase == SETTLEMENT:
            if len(register.settled) == shards:
                register.enter(OVER, self.time)
                self.tell_all(RESOLUTION, True)
                self.resolve(True)
            elif self.is_late("settle_time"):
                self.tell_all(RESOLUTION, False)
                self.call_off()

    def is_late(self, parameter: str) -> bool:
        patience = 1 if parameter == "settle_time" else min(2**self.register.failures, 8)
        return bool(self.time >= self.register.since + patience * self.network.parameters[parameter])

    def may_close_the_roll(self) -> bool:
        register, parameters = self.register, self.network.parameters
        is_due = register.called or self.time >= self.opened + parameters["epoch_time"]
        heard_of = register.farewells | register.registrations.keys()
        are_enough = len(register.registrations) >= parameters["committee_size"]
        return bool(self.time >= register.not_before and is_due and are_enough) and have_quorums(
            self.committees.values(), heard_of
        )

    def fix_the_document(self) -> None:
        size = self.network.parameters["committee_size"]
        try:
            self.prospect = next_document(self.document, self.register.plain(), self.attempt, size)
        except NoDocument:
            self.call_off()
        else:
            self.register.enter(HANDOFF, self.time)

    def let_settle(self) -> None:
        self.register.enter(SETTLEMENT, self.time)
        document, cuts = document_hash(self.prospect), dict[int, list[bytes]]()
        for (_, first, _), origins in zip(self.prospect[5], self.prospect[9], strict=True):
            for origin in origins:
                cuts.setdefault(origin, []).append(first)
        for other in [*self.others, self.shard]:
            cut = max(cuts[other]) if len(cuts[other]) == 2 else b""
            if other == self.shard:
                self.begin_settling(document, cut)
            else:
                self.outbox[other].append([SETTLE, self.attempt, document, cut])

    def call_off(self) -> None:
        register, failures = self.register, self.register.failures + 1
        pause = self.network.parameters["epoch_pause"] * 2 ** min(failures, 6)
        self.register = Register(self.time, self.time + pause, register.called, failures, register.farewells)
        self.resolve(False)
        self.attempt += 1


def have_quorums(committees: Iterable[Sequence[bytes]], keys: Iterable[bytes]) -> bool:
    """Whether of each committee all but a third, rounded down, are among these keys."""
    known = set(keys)
    return all(len(known & set(members)) >= len(members) - (len(members) - 1) // 3 for members in committees)
