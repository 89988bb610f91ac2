"""``python -m gateway admin grant|revoke|list``: who is an administrator is decided on the gateway's host."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from config.settings import GatewaySettings, SettingsError, read_settings
from gateway.admin import roles
from gateway.admin.audit import checked_reason
from gateway.database import open_engine
from gateway.identity.text import email_address

DESCRIPTION = """Makes users administrators who may use /v1/admin; they need a verified e-mail address and a second factor. Beside
a gateway that runs, or without it; it counts at once. Exit code: 0 done, 1 not possible, 2 wrong settings."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway admin", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("grant", "revoke", "list"):
        command = commands.add_parser(name)
        command.add_argument("--config", required=True, type=Path, metavar="FILE", help="the gateway's settings (TOML)")
        if name != "list":
            command.add_argument("email", metavar="EMAIL")
            command.add_argument("--reason", required=True, metavar="TEXT", help="for the audit log")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except roles.RoleError as error:
        print(f"admin: {error}", file=sys.stderr)
        return 1
    except (SettingsError, SQLAlchemyError, CommandError, OSError, ValueError, ImportError) as error:
        print(f"admin: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    engine = open_engine(read_settings(GatewaySettings, options.config).database)
    try:
        with engine.connect() as connection:
            if options.command == "list":
                print("\n".join(roles.emails(connection)))
                return 0
            user_id = roles.user_of(connection, email_address(options.email))
        reason = checked_reason(options.reason)
        with engine.begin() as connection:
            (roles.grant if options.command == "grant" else roles.revoke)(connection, user_id, reason)
        print(f"{options.email} is {'now' if options.command == 'grant' else 'no longer'} an administrator.")
        return 0
    finally:
        engine.dispose()
