"""Mutations of the rules by which one epoch becomes the next, each with the plan that shows it. ``mutants`` has the others.

``python -m tests.simulation.epoch_mutants SEEDS NAME ...`` says which of so many seeds, from the plan's on, catches them.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, structs

from node import chronicle, duty, recovery
from node.chronicle import Chronicle
from node.duties import Duties
from node.effects import Begin
from node.ledger import opening, register, settlement
from node.ledger.settlement import Settlement
from node.node import Node
from node.protocol import assignment, succession
from node.protocol.change import Bulletin, Change, RegisterPhase, Stage
from node.protocol.channel import Fence, Resolution, Settle, Settled
from node.protocol.codec import encode
from node.protocol.entries import Call, Disclosure, Enrolment, Farewell, Ready
from node.protocol.epoch import InvalidDocument, Registration
from node.protocol.succession import Succession
from node.renewal import Renewal
from node.replica import proposing, taking_over
from tests.simulation.boundaries import run
from tests.simulation.boundary_plan import Plan
from tests.simulation.mutants import Mutation

Original = Any
STAY = Plan(seed=1)
SPLIT = Plan(seed=1, committees=1, joining=4)
MERGE = Plan(seed=1, leaving=4)
BUSY = Plan(seed=1, committees=3, payments=6, pace=50, loss=0.1)
DEAD = Plan(seed=1, coordinator="dead")
PARTS = Plan(seed=1, committees=1, joining=4, epochs=2, checkpoint_interval=8, liar="junk", coordinator="dead", patience=25_000)
WIPED = Plan(seed=1, wiped=True)
LOSSY = Plan(seed=1, committees=1, joining=4, late=2_000, broker_loss=0.5)
OUTAGE = Plan(seed=1, settle_time=2_400, outage=True)
"""An attempt is called off in settlement."""


class EpochMutant(Struct, frozen=True):
    """``what`` is done in place of what the rule says; ``plan``: whose run catches it."""

    what: str
    plan: Plan
    mutations: tuple[Mutation, ...]


def _swap(owner: Any, attribute: str, replacement: Any) -> Mutation:
    return Mutation(owner, attribute, lambda _: replacement)


def _lied_to(plan: Plan, liar: str) -> Plan:
    return structs.replace(plan, liar=liar)


def _impatient(plan: Plan) -> Plan:
    """Who waits for what never comes waits less long."""
    return structs.replace(plan, patience=25_000)


# -- settlement --------------------------------------------------------------------------------------------------------


def _settle(*, undecided: bool = True, fences: bool = True) -> Mutation:
    """``Settlement._settle``, without looking at some of it."""

    def settle(self: Settlement) -> None:
        overlay, change, rules = self._overlay, self.change, self._rules
        if change.stage is not Stage.SETTLING:
            return
        if change.fenced != change.attempt and not (undecided and any(overlay.waiting_for.values())):
            self._set(fenced=change.attempt)
            for peer in sorted(rules.peers):
                self._outbox.send(peer, Fence(change.attempt))
        others = {shard for shard, attempt in change.fences if attempt == change.attempt}
        is_fenced = self.change.fenced == change.attempt and (not fences or others >= rules.peers)
        if is_fenced and not any(overlay.prepared_for.values()):
            self._set(stage=Stage.SETTLED)
            self._report(Settled(change.attempt))

    return _swap(Settlement, "_settle", settle)


def _close_at_once(original: Original) -> Any:
    def obey(self: Settlement, order: Any) -> None:
        if isinstance(order, Settle):
            original(self, order)
            self._set(stage=Stage.CLOSED)
        else:
            original(self, order)

    return obey


def _without(*fields: str) -> Callable[[Original], Any]:
    """The closing block does not tell these."""

    def make(original: Original) -> Any:
        def close(self: Settlement) -> None:
            original(self)
            empty = Change()
            self._set(**{field: getattr(empty, field) for field in fields})

        return close

    return make


def _never_go_on(original: Original) -> Any:
    """The others are not told that an attempt is called off in settlement."""

    def order(self: Settlement, order: Any) -> None:
        if not isinstance(order, Resolution) or order.close:
            original(self, order)

    return order


def _decide_alone(original: Original) -> Any:
    """The register closes as soon as it is settled itself."""

    def is_over(self: Any, rules: Any, attempt: int, time: int) -> bool:
        return bool(original(self, rules, attempt, time)) or (self.phase is RegisterPhase.SETTLEMENT and bool(self.settled))

    return is_over


# -- the register ------------------------------------------------------------------------------------------------------


class _Any:
    """Like everything else."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _as_in(phase: RegisterPhase) -> Callable[[Original], Any]:
    """What is admissible in one phase is so in the next, too."""

    def make(original: Original) -> Any:
        def write(before: Any, *rest: Any) -> Any:
            if before.phase is not RegisterPhase(phase + 1):
                return original(before, *rest)
            after = original(structs.replace(before, phase=phase), *rest)
            return structs.replace(after, phase=before.phase) if after is not None else None

        return write

    return make


def _one_less(original: Original) -> Any:
    """Two of four are a quorum."""

    def have(heard_of: Any, document: Any) -> bool:
        keys = set(heard_of)
        return all(sum(key in keys for key in e.keys) >= e.quorum - 1 for e in document.electorates.values())

    return have


def _leave_the_roll(original: Original) -> Any:
    """Who says farewell once others have told their secrets withdraws."""

    def left(before: Any, farewell: Any, rules: Any) -> Any:
        after = original(before, farewell, rules)
        if after is None:
            return None
        kept = tuple(one for one in after.registrations if one.public_key != farewell.public_key)
        told = tuple(one for one in after.secrets if one[0] != farewell.public_key)
        return structs.replace(after, registrations=kept, secrets=told)

    return left


def _only_when_called(_: Original) -> Any:
    def is_due(before: Any, rules: Any, time: int) -> bool:
        return bool(time >= before.not_before and before.called)

    return is_due


def _forget_failures(original: Original) -> Any:
    def called_off(*arguments: Any) -> Any:
        return structs.replace(original(*arguments), failures=0)

    return called_off


# -- the next document ---------------------------------------------------------------------------------------------------


def _greatest_first(original: Original) -> Any:
    def merge(ranges: Any, loads: Any, count: int) -> Any:
        return original(ranges, {r.shard: -loads.get(r.shard, 0) for r in ranges}, count)

    return merge


def _all_stay(_: Original) -> Any:
    def keep(following: Any, stayers: Any, halved: Any, size: int) -> Any:
        return list(stayers[following.origins[0]][:size]) if following.origins[0] not in halved else []

    return keep


def _from_the_middle(_: Original) -> Any:
    """A split gives the lower part one address more."""

    def middle(first: bytes, last: bytes) -> bytes:
        low, end = int.from_bytes(first, "big"), int.from_bytes(last, "big") + 1
        return (low + (end - low) // 2 + 1).to_bytes(20, "big")

    return middle


# -- the next epoch begins -------------------------------------------------------------------------------------------------


def _first_origin_only(original: Original) -> Any:
    def included(states: Any, rules: Any, time: int) -> Any:
        return original(states[:1], rules, time)

    return included


def _accounts_of_all(_: Original) -> Any:
    """Each shard that comes from an origin keeps all of its accounts."""

    def accounts(origin: Any, rules: Any) -> Any:
        yield from origin.balances.items()

    return accounts


def _not_carried(original: Original) -> Any:
    def sums(*arguments: Any) -> Any:
        return {key: row for key, row in original(*arguments).items() if not key.endswith(b"o")}

    return sums


def _earlier(original: Original) -> Any:
    """A merged shard begins with the earlier of its origins' times."""

    def open_state(rules: Any, document: Any, origins: Any, credit: Any) -> Any:
        found = original(rules, document, origins, credit)
        found.time = min(origin.closing.time for origin in origins)
        return found

    return open_state


def _register_is_enough(_: Original) -> Any:
    """An epoch begins with the register's closing block."""

    def close(self: Chronicle, current: Any) -> Any:
        own = self.closings.get(current.register)
        return [self._go_on(Succession((own,)))] if own is not None else []

    return close


def _of_any_shards(_: Original) -> Any:
    def following(self: Succession, previous: Any, parameters: Any, is_known: bool = False) -> Any:
        first = self.closings[0]
        for closing in self.closings:
            succession._check_closing(closing, previous, is_known)
        if first.change.register is None:
            raise InvalidDocument("no register")
        return assignment.next_document(previous, first.change.register, first.change.attempt, parameters)

    return following


def _leave_the_pledge(original: Original) -> Any:
    """The secret does not go to where the votes are."""

    def go_on(self: Node, news: Any) -> Any:
        effects = original(self, news)
        return [effect for effect in effects if isinstance(effect, Begin)]

    return go_on


def _tell_at_once(original: Original) -> Any:
    """A node tells its secret when it registers."""

    def say(self: Renewal, entry: Any, *rest: Any) -> Any:
        found, pledge = original(self, entry, *rest), self.pledge
        if found and isinstance(entry, Enrolment) and pledge is not None:
            told = encode(Disclosure(pledge.attempt, self._key.public, pledge.secret))
            found.append(structs.replace(found[0], body=told))
        return found

    return say


def _true(_: Original) -> Any:
    return lambda *_, **__: True


def _valid_if_numbered(_: Original) -> Any:
    """A bulletin is believed without the committee's signatures."""

    def is_valid(self: Bulletin, electorate: Any) -> bool:
        return bool(self.header.shard == electorate.shard)

    return is_valid


def _nobody(_: Original) -> Any:
    return lambda self, chain: frozenset()


def _nothing(_: Original) -> Any:
    return lambda *_: {}


_MAY_BEGIN = tuple(Mutation(module, "may_begin", _true) for module in (settlement, proposing))


def _mutant(what: str, plan: Plan, *mutations: Mutation, seed: int = 1) -> EpochMutant:
    return EpochMutant(what, structs.replace(plan, seed=seed), mutations)


MUTANTS = {
    # settlement
    "begin-while-settling": _mutant("payments across shards begin in settlement, too", BUSY, *_MAY_BEGIN),
    "early-fence": _mutant("a fence is sent before all is decided", BUSY, _settle(undecided=False)),
    "settled-without-fences": _mutant("nobody else's fence is waited for", STAY, _settle(fences=False), seed=2),
    "close-at-once": _mutant("who is to settle closes", STAY, Mutation(Settlement, "_obey", _close_at_once)),
    "decide-alone": _mutant(
        "the register decides when one shard is settled", BUSY, Mutation(register, "_is_over", _decide_alone), seed=3
    ),
    "closing-height": _mutant(
        "the closing block is not told from later ones", STAY, Mutation(Settlement, "_close", _without("closed"))
    ),
    "closing-totals": _mutant("a closing block has no totals", STAY, Mutation(Settlement, "_close", _without("totals"))),
    "upper": _mutant("a split does not say what is above the cut", SPLIT, Mutation(Settlement, "_close", _without("upper"))),
    "cut": _mutant("a shard is not told where it is cut", SPLIT, _swap(settlement, "cut_of", lambda *_: b"")),
    "never-go-on": _mutant(
        "nobody is told that settlement is called off", _impatient(OUTAGE), Mutation(Settlement, "_order", _never_go_on)
    ),
    # the register
    "two-of-four": _mutant("fewer than a quorum is enough to end a phase", LOSSY, Mutation(register, "_have_quorums", _one_less)),
    "open-roll": _mutant(
        "who comes late is registered in phase reveal",
        LOSSY,
        Mutation(register, "_enrolled", _as_in(RegisterPhase.REGISTRATION)),
        seed=14,
    ),
    "late-secret": _mutant(
        "a secret counts in handoff, too",
        _lied_to(STAY, "late"),
        Mutation(register, "_told", _as_in(RegisterPhase.REVEAL)),
        seed=2,
    ),
    "any-secret": _mutant(
        "a secret need not be the one committed to",
        _lied_to(STAY, "undecided"),
        _swap(register, "commitment_to", lambda secret: _Any()),
    ),
    "withdraw": _mutant(
        "a farewell takes back a secret that was told", _lied_to(STAY, "undecided"), Mutation(register, "_left", _leave_the_roll)
    ),
    "unsigned-call": _mutant(
        "anybody calls for the coordinator",
        _lied_to(DEAD, "forger"),
        Mutation(Call, "is_signed", _true),
    ),
    "unsigned-farewell": _mutant(
        "anybody says farewell for others",
        _lied_to(STAY, "forger"),
        _swap(Farewell, "is_signed", property(lambda self: True)),
        seed=2,
    ),
    "unsigned-ready": _mutant(
        "anybody says that others are ready",
        _lied_to(STAY, "forger"),
        _swap(Ready, "is_signed", property(lambda self: True)),
        seed=2,
    ),
    "unsigned-enrolment": _mutant(
        "anybody registers others", _lied_to(STAY, "forger"), _swap(Registration, "check", lambda *_: None), seed=3
    ),
    "only-when-called": _mutant(
        "an epoch does not end without the coordinator",
        _impatient(DEAD),
        Mutation(register, "_is_due", _only_when_called),
    ),
    "forget-failures": _mutant(
        "the pause after an attempt does not grow",
        structs.replace(SPLIT, handoff_time=100),
        Mutation(register, "_called_off", _forget_failures),
    ),
    "never-longer": _mutant(
        "what failed for want of time has no more of it",
        Plan(seed=1, loss=0.15, broker_loss=0.4, delay=60, liar="unready", handoff_time=2_000, outage=True),
        Mutation(register, "_grown", lambda original: lambda length, register: length),
        seed=5,
    ),
    "tell-at-once": _mutant("a secret is told before the roll is closed", STAY, Mutation(Renewal, "_say", _tell_at_once)),
    # the next document
    "greatest-merge": _mutant(
        "shards with the greatest loads merge",
        Plan(seed=1, committees=3, leaving=4, payments=6, pace=100),
        Mutation(assignment, "_merge", _greatest_first),
        seed=2,
    ),
    "all-stay": _mutant("nobody moves", STAY, Mutation(assignment, "_keep_seats", _all_stay)),
    "uneven-halves": _mutant("a shard is split elsewhere", SPLIT, Mutation(assignment, "_middle", _from_the_middle)),
    # the next epoch begins
    "forget-answers": _mutant("answered prepares are forgotten", STAY, Mutation(opening, "_answers", _nothing)),
    "forget-included": _mutant("what was included can be again", STAY, _swap(opening, "included", lambda *_: iter(()))),
    "half-included": _mutant(
        "of two that merge one's payments can be again", MERGE, Mutation(opening, "included", _first_origin_only)
    ),
    "carried": _mutant("what came over borders is not carried on", STAY, Mutation(opening, "_sums", _not_carried)),
    "credits": _mutant("nobody has credit in a new epoch", STAY, Mutation(chronicle, "next_credits", _nothing)),
    "both-halves": _mutant("both halves keep all accounts", SPLIT, Mutation(opening, "_accounts", _accounts_of_all)),
    "earlier-time": _mutant("merged shards begin at the earlier time", MERGE, Mutation(recovery, "open_state", _earlier)),
    # what nodes believe and keep
    "any-bulletin": _mutant(
        "bulletins need no proof",
        _impatient(_lied_to(STAY, "forger")),
        Mutation(Bulletin, "is_valid", _valid_if_numbered),
        seed=3,
    ),
    "register-is-enough": _mutant(
        "an epoch begins before all shards have closed",
        STAY,
        Mutation(Chronicle, "_close", _register_is_enough),
        Mutation(Succession, "next_document", _of_any_shards),
    ),
    "any-parts": _mutant("parts of a state are not checked", PARTS, Mutation(taking_over, "_is_right", _true), seed=2),
    "no-guests": _mutant("newcomers are not let in", _impatient(SPLIT), Mutation(Duties, "_guests_of", _nobody)),
    "stale-pledge": _mutant("the secret stays where it was", _impatient(STAY), Mutation(Node, "_go_on", _leave_the_pledge)),
    "vote-again": _mutant("who lost its disk votes again", WIPED, _swap(duty, "is_bound", lambda *_: True), seed=2),
}


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 1 when one survives."""
    seeds, *names = arguments or ["1"]
    survive = 0
    for name in names or MUTANTS:
        mutant, begun, violation, tried, plan = MUTANTS[name], time.process_time(), None, 0, MUTANTS[name].plan
        while violation is None and tried < int(seeds):
            plan = structs.replace(mutant.plan, seed=mutant.plan.seed + tried)
            tried, violation = tried + 1, run(plan, mutant.mutations).violation
        survive += violation is None
        seconds = time.process_time() - begun
        print(f"{name:24} seed {plan.seed:3} {seconds:5.1f} s  {(violation or 'SURVIVES')[:120]}", flush=True)
    return 1 if survive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
