"""What the gateway tells of itself, as a reader of the reports topic sees it."""

from collections.abc import Callable, Iterator

import redis

from node.protocol.reports import GatewayFigures, read_report
from node.protocol.topics import reports_topic
from tests.gateway.world import World


def figures_of(world: World) -> Iterator[GatewayFigures]:
    """As they come, half a minute of them at most."""
    with redis.Redis.from_url(world.broker.url) as client, client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(reports_topic(world.network.network))
        for _ in range(60):
            message = subscription.get_message(timeout=0.5)
            content = read_report(message["data"]).content if message else None
            if isinstance(content, GatewayFigures):
                yield content


def test_it_counts_what_people_do_and_measures_how_long_payments_take(new_world: Callable[[], World]) -> None:
    world = new_world()  # where nobody else's payments are among those of the last minute
    world.start_gateway()
    before = next(figures_of(world))
    alice = world.person()
    purse, near, far = alice.wallet(0, USD="10.00"), alice.wallet(0), alice.wallet(1)
    alice.pay(purse, near["address"], "1", wait=10)
    with world.network.switched(slow_commit=True):
        slow = alice.pay(purse, far["address"], "1", wait=1).json()["id"]
    assert alice.transfer(slow, wait=10)["status"] == "committed"
    told = next(figures for figures in figures_of(world) if figures.transfers == before.transfers + 2 and figures.pending == 0)
    counted = [[f.sign_ups, f.logins, f.purchases, f.transfers] for f in (before, told)]
    assert [new - old for old, new in zip(*counted, strict=True)] == [1, 1, 1, 2]
    assert told.process.doing == "serving"
    assert told.cross is not None
    assert told.cross.p99_us >= 1_000_000, "it waited a second for the other shard"
    assert told.intra is not None
    assert 0 < told.intra.p50_us <= told.intra.p99_us
