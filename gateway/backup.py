"""``python -m gateway backup FILE --config FILE``: a copy of an SQLite database at one moment, while the gateway runs or not."""

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from config.settings import GatewaySettings, SettingsError, read_settings

DESCRIPTION = """Copies a gateway's SQLite database to FILE, which must not exist, while the gateway runs or not. Of PostgreSQL
take a dump with pg_dump. The keys are not in it: keep them elsewhere. Exit code: 0 done, 2 not."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway backup", description=DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the gateway's settings (TOML)")
    options = parser.parse_args(arguments)
    try:
        url = make_url(read_settings(GatewaySettings, options.config).database)
        if url.get_backend_name() != "sqlite" or not url.database:
            raise ValueError("this database is no SQLite file: take a dump with pg_dump")
        size = back_up(Path(url.database), options.file)
    except (SettingsError, SQLAlchemyError, sqlite3.Error, OSError, ValueError) as error:
        print(f"backup: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(f"{options.file}: {size} bytes")
    return 0


def back_up(database: Path, target: Path) -> int:
    """Copy an SQLite database, as it is at one moment, to a file only its owner can read; its size. Half a copy is none.

    Raises:
        OSError: ``target`` exists, ``database`` does not, or the disk is full.
        sqlite3.Error: the database is damaged.
    """
    partial = target.with_name(f"{target.name}.partial")
    if target.exists():
        raise FileExistsError(f"{target} exists")
    if not database.is_file():
        raise FileNotFoundError(f"there is no {database}")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
            (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(f"the database is damaged: {found}")
            copy.execute("PRAGMA journal_mode=DELETE")  # so that all of it is in the one file
        _sync(partial)
        os.link(partial, target)  # which does not replace one that came meanwhile
    finally:
        partial.unlink(missing_ok=True)
    _sync(target.parent)
    return target.stat().st_size


def _sync(path: Path) -> None:
    """Onto the disk: a file, or which files are in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
