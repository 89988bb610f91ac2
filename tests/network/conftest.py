"""A network of real processes, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.network.harness import Network, running_network


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running_network(tmp_path_factory.mktemp("network")) as network:
        yield network
