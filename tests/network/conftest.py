"""One network of real processes for all tests that leave it as they found it, or healed."""

from collections.abc import Callable, Iterator

import pytest

from tests.network.harness import Network, running_network
from tests.person import Person


@pytest.fixture(scope="session")
def shared_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running_network(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def network(shared_network: Network) -> Network:
    """With everything running, whatever a failed test before left dead."""
    if shared_network.pids().keys() != shared_network.all_names:
        shared_network.up()
    return shared_network


@pytest.fixture
def person(network: Network) -> Callable[[], Person]:
    return network.person
