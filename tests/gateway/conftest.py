"""One broker, network and gateway for the tests that only use them; new ones for those that break them."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from scripts.devnet.postgres import USER, PostgresError, find_programs, running_server
from tests.gateway.world import STRICT_ATTEMPTS, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Shared; a test leaves its switches as it found them."""
    with closing(World(tmp_path_factory.mktemp("shared"))) as shared:
        shared.start_gateway()
        yield shared


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Shared: a gateway behind a proxy, where an address must be verified before the first login."""
    settings = {
        "verification": "required",
        "public_url": "https://wallet.example.org/",
        "trusted_proxies": ["127.0.0.0/8"],
        "attempts_per_address": STRICT_ATTEMPTS,
    }
    with closing(World(tmp_path_factory.mktemp("strict"), settings)) as shared:
        shared.start_gateway("/healthz")
        yield shared


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Makes empty databases on a PostgreSQL server."""
    try:
        programs = find_programs("psql")
    except PostgresError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with running_server(programs) as socket:
        names = iter(f"gateway{number}" for number in range(100))

        def make() -> str:
            name = next(names)
            psql = [str(programs["psql"]), "-q", "-h", str(socket), "-U", USER, "-c", f"CREATE DATABASE {name}", "postgres"]
            subprocess.run(psql, check=True)
            return f"postgresql://{USER}@/{name}?host={socket}"

        yield make


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds of a test's own, gateway not started yet."""
    with ExitStack() as stack:

        def make(settings: Mapping[str, object] | None = None, terms: Mapping[str, tuple[int, int]] | None = None) -> World:
            return stack.enter_context(closing(World(tmp_path, settings, terms)))

        yield make
