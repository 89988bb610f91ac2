"""Throttles: counted by all gateways together while the broker is there, and by each alone while it is not."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.identity.throttle import Attempt, Counts, Limit, SharedCounts, Throttle, client_of
from gateway.problems import Problem
from tests.gateway.test_accounts import problem
from tests.gateway.world import STRICT_ATTEMPTS, World
from tests.person import PASSWORD
from tests.processes import BrokerProcess
from tests.waiting import until

LOGIN = Limit("login", 3, 60.0)
ANN, BOB = Attempt(LOGIN, "ann"), Attempt(LOGIN, "bob")


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    made = BrokerProcess()
    made.start()
    yield made
    made.kill()


def throttle(url: str, network: bytes = b"a") -> Throttle:
    """That of a gateway."""
    return Throttle(Counts(), SharedCounts(url, network, bytes(32)))


def test_gateways_count_together(broker: BrokerProcess) -> None:
    async def story() -> None:
        gateways = [throttle(broker.url, b"together") for _ in range(2)]
        for number in range(3):
            await gateways[number % 2].check(ANN)
        for gateway in gateways:
            with pytest.raises(Problem) as error:
                await gateway.check(ANN)
            assert (error.value.status, error.value.limit) == (429, 3)
            assert 1 <= (error.value.retry_after or 0) <= 60
            await gateway.check(BOB)
            await gateway.close()
        names = str(broker.client.keys(f"shardpay:{b'together'.hex()}:*"))
        assert names.count("attempts") == 2
        assert "ann" not in names, "who it was is not told to the broker"

    asyncio.run(story())


def test_what_is_forgiven_is_not_missing_for_others(broker: BrokerProcess) -> None:
    async def story() -> None:
        gateways = [throttle(broker.url, b"forgiven") for _ in range(2)]
        for number in range(9):
            await gateways[number % 2].check(ANN)
            await gateways[number % 2].forgive(ANN)
        for _ in range(3):
            await gateways[0].check(ANN)
        with pytest.raises(Problem):
            await gateways[1].check(ANN)
        for gateway in gateways:
            await gateway.close()

    asyncio.run(story())


def test_a_login_that_succeeds_leaves_others_as_many_attempts_as_before(world: World) -> None:
    ann, counts = world.person(), world.broker.client

    def counted(password: str) -> list[int]:
        """On those counts that are only of this account."""
        before = {name: counts.get(name) for name in counts.keys("shardpay:*:attempts:*")}
        world.gateway.http.post("/v1/auth/login", json={"email": ann.email, "password": password})
        now = {name: counts.get(name) for name in counts.keys("shardpay:*:attempts:*")}
        return sorted(int(now[name] or 0) - int(before.get(name) or 0) for name in now if now[name] != before.get(name))

    # By this client; and of all, beside this client and account, wrong ones on the account.
    assert counted(PASSWORD) == [1, 1]
    assert counted("not the one") == [1, 1, 1]


def test_a_window_ends(broker: BrokerProcess) -> None:
    async def story() -> None:
        short, gateway = Attempt(Limit("short", 1, 0.3), "ann"), throttle(broker.url, b"window")
        await gateway.check(short)
        with pytest.raises(Problem):
            await gateway.check(short)
        until(lambda: not broker.client.keys(f"shardpay:{b'window'.hex()}:*"), "the broker forgets")
        await gateway.check(short)
        await gateway.close()

    asyncio.run(story())


@pytest.mark.parametrize("hangs", [False, True])
def test_each_gateway_counts_alone_while_the_broker_does_not_answer(hangs: bool) -> None:
    async def story() -> None:
        silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        if not hangs:
            silent.close()
        gateway = throttle(f"redis://127.0.0.1:{port}")
        for _ in range(3):
            await gateway.check(ANN)
        with pytest.raises(Problem):
            await gateway.check(ANN)
        await gateway.check(BOB)
        await gateway.close()
        silent.close()

    asyncio.run(story())


def test_what_one_limit_refuses_does_not_count_against_the_next(broker: BrokerProcess) -> None:
    async def story() -> None:
        gateway, narrow = throttle(broker.url, b"order"), Attempt(Limit("narrow", 1, 60.0), "a client, ann")
        await gateway.check(narrow, ANN)
        for _ in range(5):
            with pytest.raises(Problem):
                await gateway.check(narrow, ANN)
        await gateway.check(ANN)  # whom else nobody could log in
        await gateway.close()

    asyncio.run(story())


def test_a_bounded_number_of_counts_is_remembered_the_latest() -> None:
    now = 0.0
    counts = Counts(100, lambda: now)
    attempts = [Attempt(LOGIN, str(number)) for number in range(101)]
    assert [counts.add(one).attempts for one in attempts] == [1] * 101
    assert (counts.add(attempts[100]).attempts, counts.add(attempts[0]).attempts) == (2, 1)
    now = 60.0
    assert counts.add(attempts[100]).attempts == 1


def test_a_client_is_an_address_or_a_network_of_ipv6() -> None:
    assert client_of("2001:db8:1:2::3") == client_of("2001:db8:1:2:ffff::") != client_of("2001:db8:1:3::3")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") != client_of("192.0.2.2")
    assert client_of("a socket") == "a socket"


def test_a_client_is_throttled_by_the_address_that_its_proxy_saw(strict: World) -> None:
    def attempt(number: int, seen: str) -> tuple[int, str]:
        headers = {"X-Forwarded-For": f"198.51.100.{number % 200}, {seen}"}
        return problem(strict.gateway.http.post("/v1/auth/verify", json={"token": "x"}, headers=headers))

    assert {attempt(number, "203.0.113.7") for number in range(STRICT_ATTEMPTS)} == {(422, "invalid_link")}
    assert attempt(1, "203.0.113.7") == (429, "too_many_attempts"), "whatever the client has written before"
    assert attempt(1, "203.0.113.8") == (422, "invalid_link")
