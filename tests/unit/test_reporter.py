"""What a node tells of itself."""

from types import SimpleNamespace
from typing import Any, cast

import trio
from trio.testing import MockClock

from node.protocol.reports import Left, NodeFigures, Notable, read_report
from node.reporter import Reporter
from tests.figures import NODE


async def test_that_it_has_left_is_its_last_word(autojump_clock: MockClock) -> None:
    said = list[Any]()
    line = SimpleNamespace(publish=lambda _, body: said.append(type(read_report(body).content)), connected=True)
    rest = (SimpleNamespace(), SimpleNamespace(), [line], SimpleNamespace(), SimpleNamespace(update=lambda *_: None))
    reporter = Reporter("node-1", bytes(8), *cast(Any, rest))
    reporter.figures = lambda: NODE  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        await trio.sleep(1.5)
        reporter.left()
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    *figures, notable, last = said
    assert (set(figures), notable, last) == ({NodeFigures}, Notable, Left)
