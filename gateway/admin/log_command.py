"""``python -m gateway audit-log verify|head``: whether the audit log is what it was, and what to keep of it elsewhere."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from config.settings import GatewaySettings, SettingsError, read_settings
from gateway.admin.audit import Head, verify
from gateway.database import open_engine

DESCRIPTION = """The audit log is a chain of hashes. "head" prints the number and hash of its last entry, to be kept where who can
write the database cannot write. "verify" recomputes the chain and compares it with what was kept. Exit code: 0 it is what it was,
1 it was changed, and where, 2 it cannot be told."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway audit-log", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("verify", "head"):
        command = commands.add_parser(name)
        command.add_argument("--config", required=True, type=Path, metavar="FILE", help="the gateway's settings (TOML)")
        if name == "verify":
            command.add_argument("--kept", type=Path, metavar="FILE", help='lines that "head" has printed, in any order')
    options = parser.parse_args(arguments)
    try:
        kept = read_heads(options.kept.read_text()) if options.command == "verify" and options.kept else []
        engine = open_engine(read_settings(GatewaySettings, options.config).database)
        with engine.connect() as connection:
            head, wrong = verify(connection, kept)
        engine.dispose()
    except (SettingsError, SQLAlchemyError, CommandError, OSError, ValueError, ImportError) as error:
        print(f"audit-log: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    if options.command == "head" and not wrong:
        print(head)
    elif wrong:
        print(f"THE AUDIT LOG WAS CHANGED: {wrong}.", file=sys.stderr if options.command == "head" else sys.stdout)
    else:
        compared = (
            f"and agrees with {len(kept)} hashes kept elsewhere" if kept else "but was compared with nothing kept elsewhere"
        )
        print(f"The audit log of {head.number} entries is whole, {compared}.")
    return 1 if wrong else 0


def read_heads(text: str) -> list[Head]:
    """Lines of a number and a hash. Raises ValueError."""
    heads = []
    for line in text.splitlines():
        number, _, digest = line.strip().partition(" ")
        if not number.isdecimal() or len(raw := bytes.fromhex(digest)) != 32:
            raise ValueError(f"not a number and a hash: {line[:40]!r}")
        heads.append(Head(int(number), raw))
    return heads
