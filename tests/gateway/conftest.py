"""One broker, network and gateway for the tests that only use them; new ones for those that break them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

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


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds of a test's own, gateway not started yet."""
    with ExitStack() as stack:

        def make(settings: Mapping[str, object] | None = None, terms: Mapping[str, tuple[int, int]] | None = None) -> World:
            return stack.enter_context(closing(World(tmp_path, settings, terms)))

        yield make
