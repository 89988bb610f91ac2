"""Decrypted keys are kept for a short time, few, and not after their user has gone."""

import asyncio
from pathlib import Path

import pytest

from gateway.identity.sessions import Device, Sessions
from gateway.identity.tokens import Tokens
from gateway.vault import Keyring, Vault, WrongKey
from node.protocol.address import address_of
from node.protocol.crypto import KeyPair
from tests.chains import key
from tests.gateway.registered import ann_registered


class CountedVault(Vault):
    """Counts how often it was opened."""

    opened = 0

    def open(self, sealed: bytes, owner: bytes) -> bytes:
        self.opened += 1
        return super().open(sealed, owner)


class Purses:
    """Wallets of users, a keyring for two keys that keeps each for 10 s, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.vault = CountedVault(bytes(32))
        self.keyring = Keyring(self.vault, 10.0, 2, lambda: self.now)

    def open(self, name: str, owner: str = "ann") -> KeyPair:
        pair = key(name)
        address = address_of(pair.public)
        opened = self.keyring.open(owner, self.vault.seal(pair.secret, address), address)
        assert opened.secret == pair.secret
        return opened


def test_a_key_is_opened_once_while_it_is_kept_and_again_when_its_time_is_over() -> None:
    purses = Purses()
    for purses.now in (0.0, 5.0, 9.9):
        purses.open("a")
    assert purses.vault.opened == 1
    purses.now = 10.0  # used all the time, but not kept for ever
    purses.open("a")
    assert purses.vault.opened == 2


def test_keys_that_nobody_uses_are_dropped() -> None:
    purses = Purses()
    purses.open("a")
    purses.now = 5.0
    purses.open("b")
    purses.now = 10.0
    purses.keyring.drop_old()
    assert len(purses.keyring) == 1
    purses.open("b")
    assert purses.vault.opened == 2


def test_few_keys_are_kept_the_latest() -> None:
    purses = Purses()
    for name in "abcab":
        purses.open(name)
        assert len(purses.keyring) <= 2
    assert purses.vault.opened == 5
    purses.open("b")
    assert purses.vault.opened == 5


def test_a_users_keys_are_forgotten_and_nobody_elses() -> None:
    purses = Purses()
    purses.open("a", "ann")
    purses.open("b", "bob")
    purses.keyring.forget("ann")
    purses.open("b", "bob")
    assert purses.vault.opened == 2
    purses.open("a", "ann")
    assert purses.vault.opened == 3


def test_a_key_sealed_for_another_address_does_not_open() -> None:
    purses = Purses()
    sealed = purses.vault.seal(key("a").secret, address_of(key("a").public))
    with pytest.raises(WrongKey):
        purses.keyring.open("ann", sealed, address_of(key("b").public))
    assert len(purses.keyring) == 0


def test_whoever_logs_out_takes_the_keys_along(tmp_path: Path) -> None:
    async def story() -> None:
        purses = Purses()
        async with ann_registered(tmp_path) as database:
            sessions = Sessions(database, Tokens(bytes(32), 900))
            sessions.on_end = purses.keyring.forget
            session = await sessions.start("ann", "", Device("", ""))
            purses.open("a", "ann")
            purses.open("b", "bob")
            await sessions.log_out("another")
            assert len(purses.keyring) == 2
            await sessions.log_out(session.refresh)
            assert len(purses.keyring) == 1

    asyncio.run(story())
