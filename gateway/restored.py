"""``python -m gateway restored --config FILE``: what follows when a copy of the database was put back."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alembic.util.exc import CommandError
from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from config.settings import GatewaySettings, SettingsError, read_settings
from gateway.admin.audit import HOST, checked_reason, record
from gateway.database import now_ms, open_engine
from gateway.identity.tables import RefreshToken, Session
from gateway.plans.restoring import stop_all
from gateway.rotation import check_key
from gateway.vault import KEY_ENCRYPTION_KEY, SecretError, Vault, read_secrets

DESCRIPTION = """For a database that was put back, before its gateway starts: checks that the key-encryption key opens it,
ends all sessions, because some that it knows may have ended since, and stops payment files and scheduled payments, because what
they have still to pay may have been paid since. Exit code: 0 done, 2 not."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway restored", description=DESCRIPTION)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the gateway's settings (TOML)")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="for the audit log")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(GatewaySettings, options.config)
        vault = Vault(*read_secrets(KEY_ENCRYPTION_KEY, settings.devnet))
        engine = open_engine(settings.database)
        try:
            ended = after_restore(engine, vault, settings.token_lifetime, checked_reason(options.reason))
        finally:
            engine.dispose()
    except (SettingsError, SecretError, SQLAlchemyError, CommandError, OSError, ValueError, ImportError) as error:
        print(f"restored: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(f"The key opens it; {ended} sessions ended.")
    return 0


def after_restore(engine: Engine, vault: Vault, token_lifetime: int, reason: str) -> int:
    """Check the key, stop what pays by itself, and end all sessions, with an entry in the audit log; how many. Raises
    SecretError."""
    check_key(engine, vault)
    with engine.begin() as connection:
        record(connection, HOST, "database.restored", HOST, reason)
        ended = connection.execute(select(func.count()).select_from(Session).where(Session.ended.is_(False))).scalar_one()
        stop_all(connection)
        connection.execute(delete(RefreshToken))
        # Of a session that has been used since, access tokens may be later than those known here.
        connection.execute(update(Session).values(ended=True, access_until=now_ms() + token_lifetime * 1000))
    return int(ended)
