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

from node.ledger.rows import ISSUER, NAME_BYTES, NO_FLOW, Flow, flow_key
from node.ledger.rules import Rules
from node.ledger.state import NO_SUPPLY, Overlay, Supply
from node.protocol.block import Balance, net, tally
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.transaction import Action, Leg

_PAY, _FREEZE = Action.PAY, Action.FREEZE
_OK = Code.OK


def legs_here(rules: Rules, legs: Iterable[Leg], home: int) -> tuple[Leg, ...]:
    """The legs whose payer or payee this shard keeps; in the home shard also payments that pass through."""
    shard_of, here = rules.shards.shard_of, rules.shard
    passes = home == here
    found = []
    for leg in legs:
        payer_shard, payee_shard = shard_of(leg.payer), shard_of(leg.payee)
        if here in (payer_shard, payee_shard) or (passes and payer_shard != payee_shard and leg.action is _PAY):
            found.append(leg)
    return tuple(found)


def shards_of(rules: Rules, legs: Iterable[Leg]) -> set[int]:
    """The shards that the legs touch."""
    shard_of = rules.shards.shard_of
    return {shard for leg in legs for shard in (shard_of(leg.payer), shard_of(leg.payee))}


def pay(overlay: Overlay, rules: Rules, leg: Leg) -> Code | None:
    """``reserve`` and ``apply`` in one go for what most transactions are: one payment between two accounts of this shard.

    Returns OK (done), the reason it cannot be done, or None (nothing done): not such a payment.
    """
    payer, payee, asset = leg.payer, leg.payee, leg.asset
    issuer = rules.issuers.get(asset)
    if leg.action is not _PAY or issuer is None or issuer in (payer, payee):
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


def reserve(overlay: Overlay, rules: Rules, legs: Sequence[Leg]) -> Code:
    """Take the holds of the payers kept here, and what they are to mint and burn. When the answer is not OK nothing has changed.

    What comes in from other shards is not reserved: who says that it comes may not have it. See ``bulkhead``.
    """
    code = _refusal(overlay, rules, legs)
    if code is not _OK:
        return code
    owed, issues = _needs(rules, legs)
    left = {key: overlay.balance(key).available - amount for key, amount in owed.items()}
    if any(amount < 0 for amount in left.values()):
        return Code.INSUFFICIENT_FUNDS
    smallest = rules.terms.smallest_balances
    if smallest and any(0 < amount < smallest.get(key[NAME_BYTES:].decode(), 0) for key, amount in left.items()):
        return Code.BELOW_SMALLEST_BALANCE
    if not all(_may_issue(overlay, suffix, *amounts) for suffix, amounts in issues.items()):
        return Code.LIMIT_EXCEEDED
    for key, amount in owed.items():
        _adjust(overlay, key, -amount, amount)
    for suffix, (minting, burning) in issues.items():
        _move_flow(overlay, ISSUER, suffix, Flow(0, 0, minting, burning))
    return _OK


def apply(overlay: Overlay, rules: Rules, legs: Iterable[Leg], home: int) -> None:
    """Do what was reserved. Cannot fail: a credit reaches even an account that was frozen since."""
    shard_of, here = rules.shards.shard_of, rules.shard
    for leg in legs:
        suffix, amount, issuer = rules.suffixes[leg.asset], leg.amount, rules.issuers[leg.asset]
        payer_shard, payee_shard = shard_of(leg.payer), shard_of(leg.payee)
        if leg.action is not _PAY:
            if payee_shard == here:
                _set_frozen(overlay, leg.payee + suffix, leg.action is _FREEZE)
            continue
        if here not in (payer_shard, payee_shard, home) or (payer_shard == payee_shard != here):
            continue
        if payer_shard != here:
            _move_flow(overlay, payer_shard if home == here else home, suffix, Flow(entered=amount))
        elif leg.payer == issuer:
            _move_flow(overlay, ISSUER, suffix, Flow(entered=amount, entering=-amount))
        else:
            _adjust(overlay, leg.payer + suffix, 0, -amount)
        if payee_shard != here:
            _move_flow(overlay, payee_shard if home == here else home, suffix, Flow(left=amount))
        elif leg.payee == issuer:
            _move_flow(overlay, ISSUER, suffix, Flow(left=amount, leaving=-amount if payer_shard == here else 0))
        else:
            _adjust(overlay, leg.payee + suffix, amount, 0)


def release(overlay: Overlay, rules: Rules, legs: Sequence[Leg]) -> None:
    """Give back what was reserved."""
    owed, issues = _needs(rules, legs)
    for key, amount in owed.items():
        _adjust(overlay, key, amount, -amount)
    for suffix, (minting, burning) in issues.items():
        _move_flow(overlay, ISSUER, suffix, Flow(0, 0, -minting, -burning))


def incoming(rules: Rules, legs: Iterable[Leg], home: int) -> dict[tuple[int, bytes], list[int]]:
    """What enters from other shards, by shard and asset: [all of it, what of that is to be burned here]."""
    shard_of, here = rules.shards.shard_of, rules.shard
    found: dict[tuple[int, bytes], list[int]] = {}
    for leg in legs:
        payer_shard, payee_shard = shard_of(leg.payer), shard_of(leg.payee)
        if leg.action is _PAY and payer_shard != here and payer_shard != payee_shard and here in (payee_shard, home):
            key = payer_shard if home == here else home, rules.suffixes[leg.asset]
            amounts = found.setdefault(key, [0, 0])
            amounts[0] += leg.amount
            if payee_shard == here and leg.payee == rules.issuers[leg.asset]:
                amounts[1] += leg.amount
    return found


def can_take_in(overlay: Overlay, suffix: bytes, entering: int, burning: int) -> bool:
    """Whether no figure runs out when so much of an asset comes in, some of it to be burned: what was made up elsewhere may."""
    return _may_hold(overlay, suffix, entering) and (not burning or _may_issue(overlay, suffix, 0, burning))


def _refusal(overlay: Overlay, rules: Rules, legs: Sequence[Leg]) -> Code:
    """The first leg's reason that has nothing to do with amounts. Assets and issuers are checked in legs elsewhere, too."""
    shard_of, here = rules.shards.shard_of, rules.shard
    for leg in legs:
        issuer = rules.issuers.get(leg.asset)
        if issuer is None:
            return Code.UNKNOWN_ASSET
        if leg.action is not _PAY:
            if leg.payer != issuer:
                return Code.NOT_ISSUER
            continue
        suffix = rules.suffixes[leg.asset]
        for address in (leg.payer, leg.payee):
            if shard_of(address) == here and overlay.balance(address + suffix).frozen:
                return Code.ACCOUNT_FROZEN
    return _OK


def _needs(rules: Rules, legs: Iterable[Leg]) -> tuple[dict[bytes, int], dict[bytes, list[int]]]:
    """What the accounts here owe in sum, by row; what they are to [mint, burn], by asset."""
    shard_of, here = rules.shards.shard_of, rules.shard
    owed: dict[bytes, int] = {}
    issues: dict[bytes, list[int]] = {}
    for leg in legs:
        if leg.action is not _PAY or shard_of(leg.payer) != here:
            continue
        suffix, amount, issuer = rules.suffixes[leg.asset], leg.amount, rules.issuers[leg.asset]
        if leg.payer == issuer:
            issues.setdefault(suffix, [0, 0])[0] += amount
            continue
        owed[leg.payer + suffix] = owed.get(leg.payer + suffix, 0) + amount
        if leg.payee == issuer and shard_of(issuer) == here:
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
    return sum(overlay.supply.get(suffix.decode(), NO_SUPPLY)) + entering <= MAX_AMOUNT


def _adjust(overlay: Overlay, key: bytes, available: int, held: int) -> None:
    balance = overlay.balance(key)
    overlay.balances[key] = Balance(balance.available + available, balance.held + held, balance.frozen)
    _count(overlay, key[20:], available, held, 0)


def _set_frozen(overlay: Overlay, key: bytes, frozen: bool) -> None:
    balance = overlay.balance(key)
    overlay.balances[key] = Balance(balance.available, balance.held, frozen)


def _move_flow(overlay: Overlay, boundary: int, suffix: bytes, by: Flow) -> None:
    key = flow_key(boundary, suffix)
    flow = overlay.flow(key)
    entered, left = tally(flow.entered + by.entered), tally(flow.left + by.left)
    moved = Flow(entered, left, flow.entering + by.entering, flow.leaving + by.leaving)
    overlay.records[key] = None if moved == NO_FLOW else moved
    _count(overlay, suffix, 0, 0, by.entering)


def _count(overlay: Overlay, suffix: bytes, available: int, held: int, entering: int) -> None:
    code = suffix.decode()
    before = overlay.supply.get(code, NO_SUPPLY)
    overlay.supply[code] = Supply(before.available + available, before.held + held, before.entering + entering)
