"""Whose an address is, among those that the gateway follows."""

from collections import OrderedDict
from collections.abc import Iterable

from sqlalchemy import Connection

from gateway.statements import RECEIVING, WALLETS

_REMEMBERED = 50_000


class Owners:
    """Wallets' own addresses, and those on which they received. Whose an address is never changes once it is somebody's, so those
    used lately are kept in memory. Asked in the database's writer thread only."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str] = OrderedDict()

    def of(self, connection: Connection, addresses: Iterable[bytes]) -> dict[bytes, str]:
        """Wallet id by address, of those that are followed; "" for one that is nobody's yet."""
        found, unknown = dict[bytes, str](), list[bytes]()
        for address in addresses:
            if (wallet := self._known.get(address)) is None:
                unknown.append(address)
            else:
                found[address] = wallet
        for lookup in (WALLETS, RECEIVING):
            for address, wallet in lookup.run(connection, unknown):
                found[bytes(address)] = wallet
                if wallet:
                    self._known[bytes(address)] = wallet
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found
