"""One broker, network and gateway for the tests that only use them; new ones for those that break them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.fake_network import FakeNetwork
from tests.gateway.harness import BrokerProcess, GatewayProcess
from tests.person import Person


class World:
    """Everything there is."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.broker = BrokerProcess()
        self.broker.start()
        self.network = FakeNetwork(self.broker.url)
        self.network.start()
        self.gateway = GatewayProcess(folder, self.broker.url, self.network, **settings)

    def person(self) -> Person:
        return Person(self.gateway.url)

    def close(self) -> None:
        self.gateway.kill()
        self.network.stop()
        self.broker.kill()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Shared; a test leaves its switches as it found them."""
    shared = World(tmp_path_factory.mktemp("shared"))
    try:
        shared.gateway.start()
        yield shared
    finally:
        shared.close()


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds of a test's own, gateway not started yet."""
    with ExitStack() as stack:

        def make(**settings: Any) -> World:
            made = World(tmp_path, **settings)
            stack.callback(made.close)
            return made

        yield make
