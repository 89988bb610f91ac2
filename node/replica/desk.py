"""Entries that wait for a block of the register: each could be written down when it came, or it is not kept.

An entry costs a check of a signature, so what can be known without one is looked at first, and of a batch only so many are
checked. Whoever is turned away says it again.
"""

from collections.abc import Sequence

from node.ledger.register import register_of, written
from node.ledger.rules import Rules
from node.ledger.state import Overlay, State
from node.protocol.change import Register, RegisterPhase
from node.protocol.codec import DecodeError
from node.protocol.entries import Call, Enrolment, Entry, decode_entry
from node.protocol.limits import MAX_BLOCK_ENTRIES

MAX_ENTRIES = 4096
MAX_BYTES = 4 << 20
MAX_CHECKED = 4 * MAX_BLOCK_ENTRIES
"""Entries of one batch that are looked at, and that may be looked at for one block: some ten milliseconds."""

_Slot = tuple[type[Entry], bytes]
"""One of each kind waits for each public key; the coordinator's has none."""


def _slot(entry: Entry) -> _Slot:
    match entry:
        case Enrolment(registration):
            return Enrolment, registration.public_key
        case Call():
            return Call, b""
    return type(entry), entry.public_key


class Desk:
    """At most MAX_ENTRIES and MAX_BYTES, in order of arrival. ``state``: after the last final block. Empty in all shards but the
    register."""

    def __init__(self, state: State, rules: Rules) -> None:
        self._state, self._rules = state, rules
        self._waiting: dict[_Slot, tuple[Entry, bytes]] = {}
        self._bytes = 0
        self._seen_at = self._place

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def _register(self) -> Register:
        """After the last final block."""
        return register_of(self._state.change, self._rules)

    @property
    def _place(self) -> tuple[int, RegisterPhase]:
        """What most entries depend on."""
        return self._state.change.attempt, self._register.phase

    def offer(self, batch: Sequence[bytes]) -> None:
        """Take in what could be written down now, the first of a kind and key."""
        if not self._rules.is_register:
            return
        register, attempt = self._register, self._state.change.attempt
        for encoded in batch[:MAX_CHECKED]:
            try:
                entry = decode_entry(encoded)
            except DecodeError:
                continue
            slot = _slot(entry)
            if slot in self._waiting or len(self._waiting) >= MAX_ENTRIES or self._bytes + len(encoded) > MAX_BYTES:
                continue
            if written(register, entry, self._rules, attempt) is not None:
                self._put(slot, entry, encoded)

    def _put(self, slot: _Slot, entry: Entry, encoded: bytes) -> None:
        self._waiting[slot] = entry, encoded
        self._bytes += len(encoded)

    def _drop(self, slot: _Slot) -> None:
        found = self._waiting.pop(slot, None)
        self._bytes -= len(found[1]) if found is not None else 0

    def choose(self, parent: State | Overlay) -> list[Entry]:
        """As many as a block on ``parent`` may have, one written down after the other. What no block on the last final one could
        have any more is forgotten."""
        chosen: list[Entry] = []
        final, attempt = self._register, self._state.change.attempt
        register, attempt_then = register_of(parent.change, self._rules), parent.change.attempt
        for slot, (entry, _) in list(self._waiting.items())[:MAX_CHECKED]:
            following = written(register, entry, self._rules, attempt_then)
            if following is not None:
                register = following
                chosen.append(entry)
            elif written(final, entry, self._rules, attempt) is None:
                self._drop(slot)
            if len(chosen) == MAX_BLOCK_ENTRIES:
                break
        return chosen

    def took(self, entries: Sequence[Entry]) -> None:
        """A block with these became final: what waits of their kind and key, and after a change of phase what is of the one
        before, is forgotten."""
        for entry in entries:
            self._drop(_slot(entry))
        if self._place != self._seen_at:
            self._seen_at = self._place
            register, attempt = self._register, self._state.change.attempt
            waiting, self._waiting, self._bytes = self._waiting, {}, 0
            for slot, (entry, encoded) in waiting.items():
                if written(register, entry, self._rules, attempt) is not None:
                    self._put(slot, entry, encoded)
