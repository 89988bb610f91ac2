"""From a signed order to its end, which is believed when it is proven.

A payment that has been signed may be taken into a block until its ``valid_until``, whatever a gateway says of it. So a new one
is only begun when the end of all before it is known.
"""

import time
from typing import NamedTuple

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from gateway.client.connection import LONGEST_WAIT, Connection, NoAnswer, Refused
from gateway.client.folder import Folder, Payment
from gateway.client.orders import cost
from gateway.proofs import checking
from gateway.proofs.form import AccountProof, TransactionProof
from gateway.proofs.words import in_words
from gateway.times import read_time
from node.protocol.amounts import parse_amount
from node.protocol.codec import encode
from node.protocol.crypto import KeyPair
from node.protocol.transaction import Order, Transaction

EXPIRED = "expired"
_FINAL = ("committed", "rejected", EXPIRED)
_PATIENCE = 180.0
"""Seconds for which an end is waited for."""
_PAUSE = 0.1


class UnderWay(Exception):
    """The end of a payment is not known yet; the text says why. It must not be made once more."""


class CannotPay(Exception):
    """Nothing was signed; the text says why."""


class Held(Struct):
    """Of an asset, as decimal strings."""

    available: str
    held: str
    frozen: bool


class ShownWallet(Struct):
    address: str
    created_at: str


class Shown(Struct):
    """An account's wallets."""

    items: list[ShownWallet]


class Ended(NamedTuple):
    """``words``: what is proven; empty for an expiry of which there is only the gateway's word."""

    status: str
    words: list[str]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def pay(folder: Folder, connection: Connection, key: KeyPair, order: Order) -> Ended:
    """Sign an order, keep it, hand it in, and wait for its end. Raises CannotPay, UnderWay."""
    if folder.under_way():
        raise CannotPay("an earlier payment is under way: resume first")
    _check_covered(folder, connection, order)
    transaction = order.sign([key])
    folder.keep(transaction.id, Payment(encode(transaction).hex()))
    return finish(folder, connection, transaction)


def finish(folder: Folder, connection: Connection, transaction: Transaction) -> Ended:
    """Hand in a payment that is kept, again if need be, and wait for its end. Raises UnderWay."""
    try:
        status = _followed(folder, connection, transaction)
        ended = _end(folder, connection, transaction, status)
    except (NoAnswer, Refused) as error:
        raise UnderWay(str(error)) from None
    except checking.Refused as refused:
        raise UnderWay(f"the gateway's proof is false: {refused}") from None
    folder.keep(transaction.id, Payment(encode(transaction).hex(), ended.status))
    return ended


def proof_of(folder: Folder, connection: Connection, transaction_id: bytes) -> tuple[str, list[str]]:
    """What the ledger proves of a transaction: its status, and in words; the proof is kept in the folder.

    Raises:
        NoAnswer, Refused, checking.Refused: there is none, or it is false.
    """
    content = connection.get(f"/v1/transactions/{transaction_id.hex()}/proof")
    try:
        proof = TransactionProof.model_validate_json(content)
    except ValidationError:
        raise NoAnswer("the gateway's proof has another form") from None
    documents = checking.check(proof, folder.genesis, folder.place.document)
    if proof.claim.transaction_id != transaction_id.hex():
        raise checking.Refused("it is of another transaction")
    folder.keep_proof(transaction_id, content)
    return proof.claim.status, in_words(proof, documents)


def account_proof_of(folder: Folder, connection: Connection) -> list[str]:
    """What the ledger proves of the account, in words; the proof is kept in the folder. Raises as ``proof_of``."""
    content = connection.get(f"/v1/accounts/{folder.place.address}/proof")
    try:
        proof = AccountProof.model_validate_json(content)
    except ValidationError:
        raise NoAnswer("the gateway's proof has another form") from None
    documents = checking.check(proof, folder.genesis, folder.place.document)
    if proof.claim.address != folder.place.address:
        raise checking.Refused("it is of another account")
    folder.keep_account_proof(content)
    return in_words(proof, documents)


def balances_of(folder: Folder, connection: Connection) -> dict[str, Held]:
    """What the gateway says that the account holds, by asset."""
    found = connection.read(f"/v1/accounts/{folder.place.address}")
    try:
        return msgspec.convert(found["balances"], dict[str, Held])
    except (KeyError, TypeError, msgspec.ValidationError):
        raise NoAnswer("the gateway tells no balances") from None


def _check_covered(folder: Folder, connection: Connection, order: Order) -> None:
    asset = order.legs[0].asset
    decimals = next(one.decimals for one in folder.genesis.assets if one.code == asset)
    wanted = cost(order, folder.genesis)
    try:
        held = balances_of(folder, connection).get(asset, Held("0", "0", False))
        if held.frozen:
            raise CannotPay(f"this account's {asset} is frozen")
        if parse_amount(held.available, decimals) < parse_amount(wanted, decimals):
            raise CannotPay(f"{wanted} {asset} are needed, {held.available} are there")
    except (NoAnswer, Refused, ValueError) as error:
        raise CannotPay(f"the balance cannot be told: {error}") from None


def _followed(folder: Folder, connection: Connection, transaction: Transaction) -> str:
    """The status that the gateway tells at last."""
    path, late = f"/v1/transactions/{transaction.id.hex()}", time.monotonic() + _PATIENCE
    try:
        view = connection.read(path)
    except Refused as refused:
        if refused.status != 404:
            raise
        try:
            view = connection.post("/v1/transactions", {"transaction": encode(transaction).hex()}, wait=LONGEST_WAIT)
        except Refused as refusal:
            if refusal.code != EXPIRED:
                raise
            earliest = transaction.order.valid_until - folder.genesis.parameters.validity_window  # that a block can have had it
            if not _was_shown(connection, folder.place.address, earliest):
                raise UnderWay("its time is over, and this gateway cannot know whether a block has it") from None
            return EXPIRED
    while (status := view.get("status") if isinstance(view, dict) else None) not in _FINAL:
        if time.monotonic() > late:
            raise UnderWay(f"the gateway says it is {status}")
        time.sleep(_PAUSE)  # should the gateway not wait
        view = connection.read(path, wait=LONGEST_WAIT)
    return str(status)


def _was_shown(connection: Connection, address: str, since: int) -> bool:
    """Whether an address has been in the account since a time, ms: then the gateway has whatever a block had of it later."""
    try:
        wallets = msgspec.convert(connection.read("/v1/wallets"), Shown).items
        return any(one.address == address and read_time(one.created_at) <= since for one in wallets)
    except ValueError:
        raise NoAnswer("the gateway's list of wallets has another form") from None


def _end(folder: Folder, connection: Connection, transaction: Transaction, status: str) -> Ended:
    try:
        return Ended(*proof_of(folder, connection, transaction.id))
    except Refused:
        # No block has it, and none may take it any more: this much a clock of one's own can tell.
        if status == EXPIRED and now_ms() > transaction.order.valid_until:
            return Ended(EXPIRED, [])
        raise
