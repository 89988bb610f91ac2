"""Who observes a chain has its state, without a vote in it, and believes none of its members alone."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.effects import Ban, BeginHandoff, ChainEffect, Checkpoint, Commit, FinishHandoff, Send, StoreParts
from node.events import Recovered
from node.ledger.state import State
from node.protocol.certificate import CertifiedBlock, FinalBlock
from node.protocol.codec import encode
from node.protocol.messages import ChainReply, ChainRequest, CheckpointReply, CheckpointRequest, PartsRequest, Standing
from node.protocol.reports import Notable
from node.replica.observer import LAG, Observer
from tests.chains import Network
from tests.unit.replicas import at
from tests.unit.test_taking_over import Source, make_parts_small

INTERVAL = 200


class Watcher:
    """Of the first shard of a network."""

    def __init__(self, network: Network, has_state: bool = True) -> None:
        self.shard = network.shards[0]
        self.members = self.shard.electorate.keys
        recovered = Recovered(State.genesis(self.shard.rules), None, ()) if has_state else None
        self.observer = Observer(self.shard.rules, self.shard.electorate, recovered, INTERVAL, at(0))
        self.now = 0

    def connect(self, *members: int) -> list[ChainEffect]:
        return [effect for member in members for effect in self.observer.on_peer_up(self.members[member], at(self.now))]

    def tell(self, member: int, height: int) -> list[ChainEffect]:
        return self.observer.on_message(self.members[member], Standing(height, 0), at(self.now))

    def send(self, member: int, blocks: Sequence[CertifiedBlock]) -> list[ChainEffect]:
        reply = ChainReply(tuple(FinalBlock(block.block, block.finality) for block in blocks))
        return self.observer.on_message(self.members[member], reply, at(self.now))

    def catch_up(self, blocks: Sequence[CertifiedBlock]) -> list[ChainEffect]:
        """The blocks, from the member that is asked for them when all tell this height."""
        height = blocks[-1].block.header.height
        effects = [effect for member in range(len(self.members)) for effect in self.tell(member, height)]
        (asked,) = [e for e in effects if isinstance(e, Send) and isinstance(e.message, ChainRequest)]
        assert asked.message == ChainRequest(blocks[0].block.header.height)
        return self.send(self.members.index(asked.peer), blocks)


@pytest.fixture
def network() -> Network:
    found = Network()
    found.fund(found.person(0), 1_000)
    for _ in range(10):
        found.shards[0].add(found.pay(found.person(0), found.person(0, 1), 5))
    return found


@pytest.fixture
def watcher(network: Network) -> Watcher:
    found = Watcher(network)
    found.observer.start(at(0))
    found.connect(0, 1, 2, 3)
    return found


def test_it_stores_what_is_final_and_has_the_state_that_members_have(watcher: Watcher) -> None:
    chain = watcher.shard.chain
    effects = watcher.catch_up(chain)
    assert [(e.height, e.encoded) for e in effects if isinstance(e, Commit)] == [(i + 1, encode(b)) for i, b in enumerate(chain)]
    assert [effect for effect in effects if isinstance(effect, Checkpoint)] == [Checkpoint(*p) for p in watcher.shard.slices]
    assert watcher.observer.state is not None
    assert watcher.observer.state.state_root == watcher.shard.state.state_root
    assert (watcher.observer.height, watcher.observer.last) == (len(chain), watcher.shard.last(len(chain)))


def test_it_asks_every_member_how_high_it_is_and_for_a_block_at_once(watcher: Watcher) -> None:
    watcher.catch_up(watcher.shard.chain[:-1])
    height = watcher.observer.height
    watcher.now = watcher.observer.deadline
    assert watcher.now <= INTERVAL
    assert watcher.observer.on_tick(at(watcher.now)) == [Send(key, Standing(height, 0)) for key in watcher.members]
    (asked,) = watcher.tell(2, height + 1)
    assert asked == Send(watcher.members[2], ChainRequest(height + 1))


def test_once_the_closing_block_is_known_it_asks_for_the_rest_without_waiting_to_be_told(watcher: Watcher) -> None:
    watcher.catch_up(watcher.shard.chain[:-1])
    height = watcher.observer.height
    (asked,) = watcher.observer.on_closed(height + 1, at(0))
    assert isinstance(asked, Send)
    assert asked.message == ChainRequest(height + 1)


def test_what_comes_at_once_is_executed_bit_by_bit(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that observes another chain is not late in its own, however much that chain has."""
    chain, observer = watcher.shard.chain, watcher.observer
    monkeypatch.setattr("node.replica.observer._AT_ONCE", 1)
    effects = watcher.catch_up(chain)
    for height in range(2, len(chain) + 1):
        assert not any(isinstance(effect, Send) and isinstance(effect.message, ChainRequest) for effect in effects)
        assert observer.deadline <= watcher.now
        effects = observer.on_tick(at(watcher.now))
        assert [effect.height for effect in effects if isinstance(effect, Commit)] == [height]
    assert observer.deadline > watcher.now


def test_who_sent_what_is_not_final_is_banned_when_its_turn_comes(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = watcher.shard.chain
    monkeypatch.setattr("node.replica.observer._AT_ONCE", 1)
    forged = replace(chain[2], finality=chain[0].finality)
    at_first = watcher.catch_up([*chain[:2], forged])
    later = watcher.observer.on_tick(at(watcher.now))
    assert [any(isinstance(effect, Ban) for effect in effects) for effects in (at_first, later)] == [False, True]
    assert watcher.observer.height == 2


def test_it_is_current_when_a_quorum_is_hardly_ahead_whatever_one_says(watcher: Watcher) -> None:
    assert not watcher.observer.is_current
    watcher.catch_up(watcher.shard.chain[:1])
    for member, height in ((0, 1 + LAG), (1, 1 + LAG), (2, 10_000), (3, 0)):
        watcher.tell(member, height)
    assert watcher.observer.is_current
    watcher.tell(1, 2 + LAG)
    assert not watcher.observer.is_current
    watcher.tell(1, 1 + LAG)
    for member in (0, 1):
        watcher.observer.on_peer_down(watcher.members[member], at(0))
    assert not watcher.observer.is_current


def test_who_sends_what_is_not_final_is_banned_and_another_is_asked(watcher: Watcher) -> None:
    chain = watcher.shard.chain
    forged = replace(chain[0], block=replace(chain[0].block, header=replace(chain[0].block.header, time=7)))
    effects = watcher.catch_up([forged, *chain[1:]])
    (ban,) = [effect for effect in effects if isinstance(effect, Ban)]
    assert watcher.observer.height == 0
    (asked,) = [e for e in effects if isinstance(e, Send) and isinstance(e.message, ChainRequest)]
    assert asked.peer != ban.peer


def test_of_strangers_it_hears_nothing(watcher: Watcher, network: Network) -> None:
    stranger = network.shards[1].electorate.keys[0]
    watcher.observer.on_peer_up(stranger, at(0))
    assert watcher.observer.on_message(stranger, Standing(10, 0), at(0)) == []
    assert watcher.send(0, watcher.shard.chain) == []  # nor of who was not asked
    assert watcher.observer.height == 0


def test_a_committee_that_makes_final_what_is_not_valid_is_not_followed_and_harms_nobody(watcher: Watcher) -> None:
    watcher.catch_up(watcher.shard.chain)
    effects = watcher.catch_up([watcher.shard.forge(state_root=bytes(32))])
    assert [type(effect) for effect in effects] == [Notable]
    assert watcher.observer.height == len(watcher.shard.chain)
    assert not watcher.observer.is_current
    watcher.now = 10_000
    assert watcher.observer.on_tick(at(watcher.now)) == []


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    make_parts_small(monkeypatch)
    found = Source(tmp_path / "source.db")
    with closing(found.storage):
        yield found


def test_without_a_state_it_takes_over_that_of_a_checkpoint(source: Source) -> None:
    watcher = Watcher(source.network, has_state=False)
    height = len(source.shard.chain)
    effects = [*watcher.observer.start(at(0)), *watcher.connect(0, 1, 2)]
    for member in range(3):
        effects += watcher.tell(member, height)
    assert not watcher.observer.is_current
    done: list[ChainEffect] = []
    while not watcher.observer.is_handed_over:
        asked, effects = [effect for effect in effects if isinstance(effect, Send)], []
        watcher.now += 150
        for effect in asked:
            match effect.message:
                case CheckpointRequest():
                    reply = CheckpointReply(source.offer)
                    effects += watcher.observer.on_message(effect.peer, reply, at(watcher.now))
                case PartsRequest():
                    parts = source.answer(effect.message, watcher.now)
                    effects += watcher.observer.on_message(effect.peer, parts, at(watcher.now))
        effects += watcher.observer.on_tick(at(watcher.now))
        done += [effect for effect in effects if not isinstance(effect, Send | Notable)]
    assert [type(effect) for effect in (done[0], done[-1])] == [BeginHandoff, FinishHandoff]
    assert sum(isinstance(effect, StoreParts) for effect in done) > 1
