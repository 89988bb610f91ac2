"""What legs do to balances: check and reserve, then apply or release.

Seen from one shard, a leg moves units from a source to a sink. An account here is debited or credited; anything else is one of
the shard's boundaries (``rows.Flow``): the issuer's account here, where what it pays enters as minted and what it is paid leaves
as burned, or another shard, from which units enter or to which they leave. Between shards all units pass through the
transaction's home shard: a participant takes in from it and passes on to it alone, whoever pays or is paid elsewhere. So whom a
shard takes from is always who told it to. Legs that concern no account here, nor pass through, are not looked at.

All checks see the state before the transaction: what a payer receives in it does not cover what it pays, and an account that it
unfreezes is still frozen.
"""

from collections.abc import Iterable, Sequence

from node.ledger.reader import NO_SUPPLY
from node.ledger.rows import ISSUER, NAME_BYTES, NO_FLOW, Flow, flow_key
from node.ledger.rules import Rules
from node.ledger.state import Overlay
from node.protocol.block import Balance, net, tally
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Leg

_PAY, _FREEZE = Action.PAY, Action.FREEZE
_OK = Code.OK


Route = tuple[Leg, int, int]
"""A leg, its payer's shard, its payee's shard."""


def routed(rules: Rules, legs: Iterable[Leg]) -> list[Route]:
    """Where each leg leads from and to."""
    shard_of = rules.shards.shard_of
    return [(leg, shard_of(leg.payer), shard_of(leg.payee)) for leg in legs]


def legs_here(rules: Rules, routes: Iterable[Route], home: int) -> tuple[Leg, ...]:
    """The legs whose payer or payee this shard keeps; in the home shard also payments that pass through."""
    here = rules.shard
    passes = home == here
    found = []
    for leg, source, sink in routes:
        if here in (source, sink) or (passes and source != sink and leg.action is _PAY):
            found.append(leg)
    return tuple(found)


def shards_of(routes: Iterable[Route]) -> set[int]:
    """The shards that the legs touch."""
    return {shard for _, source, sink in routes for shard in (source, sink)}


def is_inside(rules: Rules, legs: Iterable[Leg]) -> bool:
    """Whether they touch this shard alone."""
    first, last = rules.first, rules.last
    return all(first <= leg.payer <= last and first <= leg.payee <= last for leg in legs)


def pay(overlay: Overlay, rules: Rules, leg: Leg) -> Code | None:
    """``reserve`` and ``apply`` in one go for what most transactions are: one payment between two accounts of this shard.

    Returns OK (done), the reason it cannot be done, or None (nothing done): not such a payment.
    """
    payer, payee, asset = leg.payer, leg.payee, leg.asset
    issuer = rules.issuers.get(asset)
    if leg.action is not _PAY or issuer is None or payer == issuer or payee == issuer:
        return None
    if not (rules.first <= payer <= rules.last and rules.first <= payee <= rules.last):
        return None
    suffix, amount, balances = rules.suffixes[asset], leg.amount, overlay.balances
    debited, credited = payer + suffix, payee + suffix
    source = balances.get(debited) or overlay.balance(debited)
    sink = balances.get(credited) or overlay.balance(credited)
    if source.frozen or sink.frozen:
        return Code.ACCOUNT_FROZEN
    left = source.available - amount
    if left < 0:
        return Code.INSUFFICIENT_FUNDS
    smallest = rules.terms.smallest_balances
    if smallest and 0 < left < smallest.get(asset, 0):
        return Code.BELOW_SMALLEST_BALANCE
    balances[debited] = Balance(left, source.held)
    balances[credited] = Balance(sink.available + amount, sink.held)
    return _OK


def reserve(overlay: Overlay, rules: Rules, routes: Sequence[Route]) -> Code:
    """Take the holds of the payers kept here, and what they are to mint and burn. When the answer is not OK nothing has changed.

    What comes in from other shards is not reserved: who says that it comes may not have it. See ``bulkhead``.
    """
    code = _refusal(overlay, rules, routes)
    if code is not _OK:
        return code
    owed, issues = _needs(rules, routes)
    smallest = rules.terms.smallest_balances
    is_too_little = False
    for key, amount in owed.items():
        left = overlay.balance(key).available - amount
        if left < 0:
            return Code.INSUFFICIENT_FUNDS
        if smallest and 0 < left < smallest.get(key[NAME_BYTES:].decode(), 0):
            is_too_little = True
    if is_too_little:
        return Code.BELOW_SMALLEST_BALANCE
    for suffix, (minting, burning) in issues.items():
        if not _may_issue(overlay, suffix, minting, burning):
            return Code.LIMIT_EXCEEDED
    for key, amount in owed.items():
        _adjust(overlay, key, -amount, amount)
    for suffix, (minting, burning) in issues.items():
        _move_flow(overlay, ISSUER, suffix, entering=minting, leaving=burning)
    return _OK


def apply(overlay: Overlay, rules: Rules, routes: Iterable[Route], home: int) -> None:
    """Do what was reserved. Cannot fail: a credit reaches even an account that was frozen since."""
    here = rules.shard
    for leg, source, sink in routes:
        suffix, amount, issuer = rules.suffixes[leg.asset], leg.amount, rules.issuers[leg.asset]
        if leg.action is not _PAY:
            if sink == here:
                _set_frozen(overlay, leg.payee + suffix, leg.action is _FREEZE)
            continue
        if (source == sink != here) or (here != source and here != sink and here != home):
            continue
        if source != here:
            _move_flow(overlay, source if home == here else home, suffix, entered=amount)
        elif leg.payer == issuer:
            _move_flow(overlay, ISSUER, suffix, entered=amount, entering=-amount)
        else:
            _adjust(overlay, leg.payer + suffix, 0, -amount)
        if sink != here:
            _move_flow(overlay, sink if home == here else home, suffix, left=amount)
        elif leg.payee == issuer:
            _move_flow(overlay, ISSUER, suffix, left=amount, leaving=-amount if source == here else 0)
        else:
            _adjust(overlay, leg.payee + suffix, amount, 0)


def release(overlay: Overlay, rules: Rules, routes: Iterable[Route]) -> None:
    """Give back what was reserved."""
    owed, issues = _needs(rules, routes)
    for key, amount in owed.items():
        _adjust(overlay, key, amount, -amount)
    for suffix, (minting, burning) in issues.items():
        _move_flow(overlay, ISSUER, suffix, entering=-minting, leaving=-burning)


def incoming(rules: Rules, routes: Iterable[Route], home: int) -> dict[tuple[int, bytes], list[int]]:
    """What enters from other shards, by shard and asset: [all of it, what of that is to be burned here]."""
    here = rules.shard
    found: dict[tuple[int, bytes], list[int]] = {}
    for leg, source, sink in routes:
        if source != here and source != sink and (sink == here or home == here) and leg.action is _PAY:
            key = source if home == here else home, rules.suffixes[leg.asset]
            amounts = found.setdefault(key, [0, 0])
            amounts[0] += leg.amount
            if sink == here and leg.payee == rules.issuers[leg.asset]:
                amounts[1] += leg.amount
    return found


def can_take_in(overlay: Overlay, suffix: bytes, entering: int, burning: int) -> bool:
    """Whether no figure runs out when so much of an asset comes in, some of it to be burned: what was made up elsewhere may."""
    return _may_hold(overlay, suffix, entering) and (not burning or _may_issue(overlay, suffix, 0, burning))


def _refusal(overlay: Overlay, rules: Rules, routes: Iterable[Route]) -> Code:
    """The first leg's reason that has nothing to do with amounts. Assets and issuers are checked in legs elsewhere, too."""
    here = rules.shard
    for leg, source, sink in routes:
        issuer = rules.issuers.get(leg.asset)
        if issuer is None:
            return Code.UNKNOWN_ASSET
        if leg.action is not _PAY:
            if leg.payer != issuer:
                return Code.NOT_ISSUER
            continue
        suffix = rules.suffixes[leg.asset]
        if source == here and overlay.balance(leg.payer + suffix).frozen:
            return Code.ACCOUNT_FROZEN
        if sink == here and overlay.balance(leg.payee + suffix).frozen:
            return Code.ACCOUNT_FROZEN
    return _OK


def _needs(rules: Rules, routes: Iterable[Route]) -> tuple[dict[bytes, int], dict[bytes, list[int]]]:
    """What the accounts here owe in sum, by row; what they are to [mint, burn], by asset."""
    here = rules.shard
    owed: dict[bytes, int] = {}
    issues: dict[bytes, list[int]] = {}
    for leg, source, sink in routes:
        if source != here or leg.action is not _PAY:
            continue
        suffix, amount, issuer = rules.suffixes[leg.asset], leg.amount, rules.issuers[leg.asset]
        if leg.payer == issuer:
            issues.setdefault(suffix, [0, 0])[0] += amount
            continue
        key = leg.payer + suffix
        owed[key] = owed.get(key, 0) + amount
        if sink == here and leg.payee == issuer:
            issues.setdefault(suffix, [0, 0])[1] += amount
    return owed, issues


def _may_issue(overlay: Overlay, suffix: bytes, minting: int, burning: int) -> bool:
    """Whether what exists of an asset issued here, and what is here of it, stays within 0 and MAX_AMOUNT."""
    flow = overlay.flow(flow_key(ISSUER, suffix))
    issued = net(flow.entered, flow.left)
    if issued + flow.entering + minting > MAX_AMOUNT or issued + flow.entering < flow.leaving + burning:
        return False
    return _may_hold(overlay, suffix, minting)


def _may_hold(overlay: Overlay, suffix: bytes, entering: int) -> bool:
    supply = overlay.supply.get(suffix, NO_SUPPLY)
    return supply.available + supply.held + supply.entering + entering <= MAX_AMOUNT


def _adjust(overlay: Overlay, key: bytes, available: int, held: int) -> None:
    balance = overlay.balance(key)
    overlay.balances[key] = Balance(balance.available + available, balance.held + held, balance.frozen)
    supply = overlay.supply_of(key[NAME_BYTES:])
    supply.available += available
    supply.held += held


def _set_frozen(overlay: Overlay, key: bytes, frozen: bool) -> None:
    balance = overlay.balance(key)
    overlay.balances[key] = Balance(balance.available, balance.held, frozen)


def _move_flow(
    overlay: Overlay, boundary: int, suffix: bytes, *, entered: int = 0, left: int = 0, entering: int = 0, leaving: int = 0
) -> None:
    key = flow_key(boundary, suffix)
    flow = overlay.flow(key)
    moved = Flow(tally(flow.entered + entered), tally(flow.left + left), flow.entering + entering, flow.leaving + leaving)
    overlay.records[key] = None if moved == NO_FLOW else moved
    if entering:
        overlay.supply_of(suffix).entering += entering
