"""What comes over the broker is taken in as far as handling it may cost."""

from types import SimpleNamespace
from typing import Any, cast

import trio
from trio.testing import MockClock

from node.events import AskedAbout, Bulletined
from node.listening import NEWS_RATE, Listening
from node.network.broker import MESSAGE_COST
from node.protocol.topics import asks_topic, bulletins_topic

NETWORK = bytes(16)


async def test_of_a_flood_of_bulletins_so_much_a_second_is_looked_at_and_asks_are_too(autojump_clock: MockClock) -> None:
    await trio.sleep(1)
    taken = list[Any]()
    intake = SimpleNamespace(offer=lambda event, size: taken.append(event))
    line = SimpleNamespace(subscribe=lambda topics: None)
    listening = Listening(NETWORK, *cast(Any, (SimpleNamespace(), line, line, intake, SimpleNamespace())))
    most = NEWS_RATE // (MESSAGE_COST + 100) + 1

    def tell(topic: str, count: int) -> int:
        before = len(taken)
        for _ in range(count):
            listening._take_in((topic, bytes(100)))
        return len(taken) - before

    assert tell(bulletins_topic(NETWORK), 2 * most) == most
    assert tell(asks_topic(NETWORK), 10) == 10
    assert [type(one) for one in (taken[0], taken[-1])] == [Bulletined, AskedAbout]
    await trio.sleep(0.5)
    assert abs(tell(bulletins_topic(NETWORK), most) - most // 2) <= 1
