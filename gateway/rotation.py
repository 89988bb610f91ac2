"""``python -m gateway rotate-key --config FILE``: seals again, under a new key-encryption key, all that another key has sealed.

While it runs, and while gateways run beside it, both keys open what they have sealed. It goes through each table by key, some
rows in a database transaction, each replaced only if nobody has changed it meanwhile. What it did is in the rows themselves, so
it may be killed at any time: the next run does what is left.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alembic.util.exc import CommandError
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from config.settings import GatewaySettings, SettingsError, read_settings
from gateway.database import ReceivingAddress, Wallet, open_engine
from gateway.events.tables import WebhookEndpoint
from gateway.events.webhooks import owner_of as owner_of_webhook
from gateway.identity.second_factor import owner_of as owner_of_totp
from gateway.identity.tables import TotpSecret
from gateway.money.tables import Payout
from gateway.vault import ID_BYTES, KEY_ENCRYPTION_KEY, SecretError, Vault, WrongKey, read_secrets

DESCRIPTION = f"""Seals again, under the first of the two keys in {KEY_ENCRYPTION_KEY} ("NEW,OLD"), all that the other has sealed.
Gateways may run meanwhile, if all of them have both keys. Kill it and start it again as you like. With one key it only looks.
Exit code: 0 everything is sealed with the first key, and opens; 1 something is not; 2 it could not be done."""
STEP = 200
"""Rows in a database transaction."""
_TRIES = 20
_MOST_NAMED = 20


class Sealed(NamedTuple):
    """A column whose values the vault has sealed; None and empty ones are none. ``owner``: what binds one to its row, given the
    row's key."""

    key: InstrumentedAttribute[Any]
    column: InstrumentedAttribute[Any]
    owner: Callable[[Any], bytes]

    @property
    def name(self) -> str:
        return f"{self.column.class_.__tablename__}.{self.column.key}"


SEALED = (
    Sealed(Wallet.address, Wallet.sealed_key, bytes),
    Sealed(ReceivingAddress.address, ReceivingAddress.sealed_key, bytes),
    Sealed(WebhookEndpoint.id, WebhookEndpoint.secret, owner_of_webhook),
    Sealed(WebhookEndpoint.id, WebhookEndpoint.old_secret, owner_of_webhook),
    Sealed(Payout.id, Payout.sealed_iban, str.encode),
    Sealed(TotpSecret.user_id, TotpSecret.sealed, owner_of_totp),
)
"""All there are. Keys are unique."""


class Tally(NamedTuple):
    """What one look through a column found. ``damaged``: keys of rows that no key here opens."""

    opened: int
    moved: int
    damaged: list[str]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway rotate-key", description=DESCRIPTION)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the gateway's settings (TOML)")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(GatewaySettings, options.config)
        vault = Vault(*read_secrets(KEY_ENCRYPTION_KEY, settings.devnet))
        engine = open_engine(settings.database)
        try:
            return rotate(engine, vault)
        finally:
            engine.dispose()
    except (SettingsError, SecretError, SQLAlchemyError, CommandError, OSError, ValueError, ImportError) as error:
        print(f"rotate-key: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2


def rotate(engine: Engine, vault: Vault) -> int:
    """Seal again what another key has sealed; the exit code. Prints progress."""
    print(f"key {vault.key_id.hex()}", flush=True)
    good = True
    for sealed in SEALED:
        opened, moved, damaged = rotate_column(engine, vault, sealed)
        left = _left(engine, vault, sealed)
        print(f"{sealed.name}: {opened} open, {moved} of them sealed again; {left} under another key", flush=True)
        for key in damaged[:_MOST_NAMED]:
            print(f"{sealed.name}: no key here opens the row {key}", file=sys.stderr)
        good = good and not left and not damaged
    print("Everything is sealed with this key." if good else "NOT EVERYTHING IS SEALED WITH THIS KEY.")
    return 0 if good else 1


def rotate_column(engine: Engine, vault: Vault, sealed: Sealed) -> Tally:
    """One look through a column, in steps."""
    opened, moved, damaged, said = 0, 0, list[str](), time.monotonic()
    for rows in _steps(engine, sealed):
        begun, changes = time.monotonic(), list[tuple[Any, bytes, bytes]]()
        for key, before in rows:
            owner = sealed.owner(key)
            try:
                secret = vault.open(before, owner)
            except WrongKey:
                damaged.append(key.hex() if isinstance(key, bytes) else str(key))
                continue
            opened += 1
            if before[:ID_BYTES] != vault.key_id:
                changes.append((key, before, vault.seal(secret, owner)))
        if changes:
            moved += _replace(engine, sealed, changes)
        if time.monotonic() > said + 1:
            said = time.monotonic()
            print(f"{sealed.name}: {opened}, {moved} of them sealed again ...", flush=True)
        time.sleep(time.monotonic() - begun)  # the other half of the time is the gateway's
    return Tally(opened, moved, damaged)


def check_key(engine: Engine, vault: Vault) -> None:
    """Whether what is sealed here opens, going by the first and the last row of each column: for the gateway, which would seal
    other secrets under a key that is not the one. Raises SecretError."""
    with engine.connect() as connection:
        for sealed in SEALED:
            query = select(sealed.key, sealed.column).where(func.length(sealed.column) > 0).limit(1)
            for order in (sealed.key.asc(), sealed.key.desc()):
                for key, before in connection.execute(query.order_by(order)):
                    try:
                        vault.open(before, sealed.owner(key))
                    except WrongKey:
                        raise SecretError(f"{KEY_ENCRYPTION_KEY} is not the key that has sealed {sealed.name}") from None


def _steps(engine: Engine, sealed: Sealed) -> Iterator[Sequence[Any]]:
    """(key, sealed) of all rows, some at a time, by key."""
    query = select(sealed.key, sealed.column).where(func.length(sealed.column) > 0).order_by(sealed.key).limit(STEP)
    last = None
    while True:
        with engine.connect() as connection:
            rows = connection.execute(query if last is None else query.where(sealed.key > last)).all()
        if not rows:
            return
        yield rows
        last = rows[-1][0]


def _replace(engine: Engine, sealed: Sealed, changes: Sequence[tuple[Any, bytes, bytes]]) -> int:
    """How many rows were still as they had been read, and are replaced, in one transaction; a busy database is asked again."""
    for tries in range(_TRIES):
        try:
            with engine.begin() as connection:
                count = 0
                for key, before, after in changes:
                    unchanged = (sealed.key == key, sealed.column == before)
                    count += connection.execute(
                        update(sealed.column.class_).where(*unchanged).values({sealed.column: after})
                    ).rowcount
                return count
        except OperationalError:
            if tries == _TRIES - 1:
                raise
            time.sleep(0.1)
    raise AssertionError("unreachable")


def _left(engine: Engine, vault: Vault, sealed: Sealed) -> int:
    """How many rows are under another key now; whoever runs beside with another one may add some at any time."""
    other = func.substr(sealed.column, 1, ID_BYTES) != vault.key_id
    query = select(func.count()).select_from(sealed.column.class_).where(func.length(sealed.column) > 0, other)
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())
