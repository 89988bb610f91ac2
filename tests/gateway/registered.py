"""A gateway's database with one user, for parts that are tested without the rest."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.database import Database, insert, open_engine
from gateway.identity.tables import User

ANN = {"id": "ann", "email": "ann@example.org", "name": "Ann", "password_hash": "", "created_at": 0}


@asynccontextmanager
async def ann_registered(folder: Path) -> AsyncIterator[Database]:
    """The database in a folder, as the next gateway finds it."""
    database = Database(open_engine(f"sqlite:///{folder}/gateway.db"))
    try:
        await database.write(lambda c: c.execute(insert(c, User).values(**ANN).on_conflict_do_nothing()) and None)
        yield database
    finally:
        database.close()
