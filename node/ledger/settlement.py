"""A shard's own part in the change to the next epoch: a two-phase commit whose home is the register.

    STAGE               on                                          then        it does
    MINING              CountRequest                                MINING      count for a second; Load to the register
    MINING              Settle                                      SETTLING    begin no payment across shards any more
    SETTLING            none is undecided of which it is the home   SETTLING    Fence to all others, once
    SETTLING            its own fence is out, those of all others   SETTLED     Settled to the register; refuse every Prepare
                        are here, and nothing is prepared
    SETTLING, SETTLED   Resolution go on                            MINING
    SETTLED             Resolution close                            CLOSED      this is the closing block
    any but CLOSED      Fence, of this attempt or a later one       the same    keep it

What the register says to its own shard, and that to it, takes no channel. A record that does not come from whom it can come from,
is of another attempt, or is out of stage is ignored.

Nothing is prepared when a shard closes, whatever others say: after an honest fence no Prepare comes in its attempt, and those of
who lied about it are refused.
"""

from msgspec import structs

from node.ledger.channels import Outbox
from node.ledger.reader import Reader
from node.ledger.register import advanced, noted, prospect, register_of, written
from node.ledger.rules import COUNT_TIME, Rules
from node.ledger.state import Overlay
from node.ledger.totals import totals_after
from node.protocol.assignment import cut_of
from node.protocol.change import Change, RegisterPhase, Stage
from node.protocol.channel import CountRequest, Fence, Load, Record, Resolution, Settle, Settled
from node.protocol.entries import Entry


def may_begin(view: Reader) -> bool:
    """Whether a block on ``view`` may begin payments across shards."""
    return view.change.stage < Stage.SETTLING


def is_closed(view: Reader) -> bool:
    """Whether only empty blocks may follow ``view``."""
    return view.change.stage is Stage.CLOSED


class Settlement:
    """At work in one block: it adds to ``outbox``, and changes ``overlay`` when all else of the block is done (``advance``).

    Attributes:
        change: as the block has it so far.
        may_begin: see there.
    """

    __slots__ = ("_outbox", "_overlay", "_rules", "change", "may_begin")

    def __init__(self, overlay: Overlay, rules: Rules, outbox: Outbox) -> None:
        self._overlay, self._rules, self._outbox = overlay, rules, outbox
        self.change = overlay.change
        self.may_begin = may_begin(overlay)

    @property
    def is_settled(self) -> bool:
        """Whether an honest shard prepares nothing here."""
        return self.change.stage >= Stage.SETTLED

    def receive(self, source: int, record: Record) -> None:
        """A record of a bundle from another shard."""
        document = self._rules.document
        if document is None:
            return
        if isinstance(record, Fence):
            self._keep(source, record)
        elif isinstance(record, CountRequest | Settle | Resolution):
            if source == document.register:
                self._obey(record)
        elif isinstance(record, Load | Settled) and self._rules.is_register:
            self._note(source, record)

    def write(self, entry: Entry) -> bool:
        """Have the register write an entry down. Returns whether it is admissible."""
        if not self._rules.is_register:
            return False
        register = written(register_of(self.change, self._rules), entry, self._rules, self.change.attempt)
        if register is not None:
            self._set(register=register)
        return register is not None

    def advance(self, included: int) -> None:
        """All records and entries are there. ``included``: transactions in the block."""
        if self._rules.document is None:
            return
        self._count(included)
        self._settle()
        if self._rules.is_register and self._end_phase():
            self._settle()
        if self.change.stage is Stage.CLOSED:
            self._close()
        if self.change != self._overlay.change:
            self._overlay.change = self.change

    # -- what others say ---------------------------------------------------------------------------------------------

    def _keep(self, source: int, fence: Fence) -> None:
        if self.change.stage is not Stage.CLOSED and fence.attempt >= self.change.attempt:
            fences = dict(self.change.fences) | {source: fence.attempt}
            self._set(fences=tuple(sorted(fences.items())))

    def _obey(self, order: CountRequest | Settle | Resolution) -> None:
        """The register's."""
        change, stage = self.change, self.change.stage
        if isinstance(order, Resolution):
            if order.attempt != change.attempt:
                return
            if order.close and stage is Stage.SETTLED:
                self._set(stage=Stage.CLOSED)
            elif not order.close and stage in (Stage.SETTLING, Stage.SETTLED):
                self._go_on(change.attempt)
        elif stage is Stage.MINING and order.attempt >= change.attempt and not self._is_again(order):
            self._set(attempt=order.attempt, counting_since=0, counted=0)
            if isinstance(order, CountRequest):
                self._set(counting_since=self._overlay.time)
            else:
                self._set(stage=Stage.SETTLING, document=order.document, cut=order.cut)

    def _is_again(self, order: CountRequest | Settle) -> bool:
        """Whether the register goes back on its word: payments may have begun since the own fence of that attempt."""
        return isinstance(order, Settle) and order.attempt == self.change.fenced

    def _note(self, shard: int, record: Load | Settled) -> None:
        """At the register."""
        if record.attempt == self.change.attempt:
            before = register_of(self.change, self._rules)
            after = noted(before, shard, record)
            if after is not before:
                self._set(register=after)

    # -- what this shard does ----------------------------------------------------------------------------------------

    def _count(self, included: int) -> None:
        change, time = self.change, self._overlay.time
        if change.counting_since and time > change.counting_since:
            counted = change.counted + included
            if time < change.counting_since + COUNT_TIME:
                if included:
                    self._set(counted=counted)
                return
            self._set(counting_since=0, counted=0)
            self._report(Load(change.attempt, counted))

    def _settle(self) -> None:
        overlay, change = self._overlay, self.change
        if change.stage is not Stage.SETTLING:
            return
        if change.fenced != change.attempt and not any(overlay.waiting_for.values()):
            self._set(fenced=change.attempt)
            for peer in sorted(self._rules.peers):
                self._outbox.send(peer, Fence(change.attempt))
        others = {shard for shard, attempt in change.fences if attempt == change.attempt}
        if self.change.fenced == change.attempt and others >= self._rules.peers and not any(overlay.prepared_for.values()):
            self._set(stage=Stage.SETTLED)
            self._report(Settled(change.attempt))

    def _report(self, record: Load | Settled) -> None:
        if self._rules.is_register:
            self._note(self._rules.shard, record)
        elif self._rules.document is not None:
            self._outbox.send(self._rules.document.register, record)

    def _go_on(self, attempt: int) -> None:
        """As before Settle. ``attempt``: to be known from now on."""
        before = self.change
        fences = tuple(fence for fence in before.fences if fence[1] > before.attempt)
        self.change = Change(attempt=attempt, fences=fences, fenced=before.fenced, register=before.register)

    def _close(self) -> None:
        overlay, cut = self._overlay, self.change.cut
        upper = overlay.available_from(cut) if cut else {}
        by_asset = tuple((code, upper[suffix]) for code, suffix in sorted(self._rules.suffixes.items()) if upper.get(suffix))
        self._set(closed=overlay.height, upper=by_asset, totals=totals_after(overlay))

    # -- the register ------------------------------------------------------------------------------------------------

    def _end_phase(self) -> bool:
        """At the register: go on to the next phase when it is time, and tell all shards what they have to know. Returns whether
        it was."""
        change, rules = self.change, self._rules
        before = register_of(change, rules)
        after = advanced(before, rules, change.attempt, self._overlay.time)
        if after is before:
            return False
        self._set(register=after)
        if after.phase is RegisterPhase.REVEAL:
            self._order(CountRequest(change.attempt))
        elif after.phase is RegisterPhase.SETTLEMENT:
            self._have_settled()
        elif after.phase is RegisterPhase.CLOSED:
            self._order(Resolution(change.attempt, close=True))
        elif after.phase is RegisterPhase.REGISTRATION:
            if before.phase is RegisterPhase.SETTLEMENT:
                self._order(Resolution(change.attempt, close=False))
            self._go_on(change.attempt + 1)
        return True

    def _order(self, order: CountRequest | Resolution) -> None:
        for peer in sorted(self._rules.peers):
            self._outbox.send(peer, order)
        self._obey(order)

    def _have_settled(self) -> None:
        rules, change = self._rules, self.change
        assert rules.document is not None
        document = prospect(register_of(change, rules), rules, change.attempt)
        for shard in rules.shards.shards:
            order = Settle(change.attempt, document.hash, cut_of(rules.document, document, shard))
            if shard == rules.shard:
                self._obey(order)
            else:
                self._outbox.send(shard, order)

    def _set(self, **fields: object) -> None:
        self.change = structs.replace(self.change, **fields)
