"""Taking over a state: whom a member asks for what, what it believes, and when it begins anew. And handing it over."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import Raw, structs

from node import handing_over as reading
from node.consensus.catching_up import CatchingUp
from node.effects import (
    Ban,
    BeginHandoff,
    ChainEffect,
    Checkpoint,
    Commit,
    FinishHandoff,
    Hold,
    In,
    LoseVotes,
    NodeEffect,
    Pledge,
    Recover,
    Send,
    SendCheckpoint,
    SendParts,
    StoreParts,
)
from node.events import ChainEvent, For, Stored, Tick, Transactions
from node.ledger import checkpoint as checkpoints
from node.ledger import replay
from node.ledger.commitment import EMPTY_TREE, branches, updated
from node.network.events import Message
from node.node import Node
from node.protocol.certificate import VoteKind, sign_vote
from node.protocol.checkpoint import Branching, CertifiedCheckpoint, Ids, Part, Rows, work_of
from node.protocol.codec import encode
from node.protocol.limits import MAX_PART_ROWS
from node.protocol.messages import (
    Ballot,
    ChainRequest,
    CheckpointReply,
    CheckpointRequest,
    Frame,
    PartsReply,
    PartsRequest,
    PeerMessage,
    Standing,
)
from node.recovery import recover
from node.replica import taking_over
from node.replica.handing_over import HELD_AT_MOST, HandingOver
from node.replica.taking_over import FAR_BEHIND, Forged, TakingOver
from node.storage import Storage
from tests.chains import Network, Shard, key
from tests.unit.replicas import at, checks

INTERVAL = 3
PEERS = [b"peer %d" % number for number in range(4)]
Sent = dict[bytes, CheckpointRequest | PartsRequest]


def make_parts_small(patch: pytest.MonkeyPatch) -> None:
    """So that 300 rows are a tree of many parts."""
    for module in (checkpoints, reading):
        patch.setattr(module, "MAX_PART_ROWS", 64)
    patch.setattr(replay, "MAX_REPLAY_PART", 7)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    make_parts_small(monkeypatch)


class Source:
    """A shard with 300 accounts and the database of its members."""

    def __init__(self, path: Path, blocks: int = 14) -> None:
        self.network = Network(committees=1, checkpoint_interval=INTERVAL)
        self.shard: Shard = self.network.shards[0]
        self.storage = Storage(path, self.network.genesis.network)
        self.serving = HandingOver(self.shard.state)
        self.offers: dict[int, CertifiedCheckpoint] = {}
        self.parts_in_an_answer: list[int] = []
        for _ in range(blocks):
            self.extend()

    def extend(self) -> None:
        height = len(self.shard.chain) + 1
        payees = [key(f"payee {30 * (height % 10) + i}") for i in range(30)]
        block = self.shard.add(*(self.network.pay(self.network.issuers["USD"], payee, height) for payee in payees))
        commit = Commit(height, height, block, encode(block), (), included=self.shard.included[height])
        self.storage.write([commit, Checkpoint(*self.shard.slices[-1])])
        newest = self.shard.state.certified
        if newest is not None:
            heights = newest.height, newest.certified_at
            self.offers[newest.height] = reading.read_checkpoint(self.storage, *heights, newest.root)

    @property
    def offer(self) -> CertifiedCheckpoint:
        return self.offers[max(self.offers)]

    def all_parts(self) -> dict[bytes, Part]:
        """Of the newest checkpoint, by place."""
        found: dict[bytes, Part] = {}
        member = TakingOver(self.shard.electorate, 0, 2 * INTERVAL)
        member.heard(PEERS[0], len(self.shard.chain))
        member.next_requests(0)
        member.offered(PEERS[0], self.offer, 0)
        now = 0
        while not member.is_whole:
            now = max(now + 1, member.deadline)
            for request in requests(member.next_requests(now)).values():
                if isinstance(request, PartsRequest):
                    reply = self.answer(request, now)
                    found |= {part.place: part for part in reply.parts}
                    member.received(PEERS[0], reply, now)
        return found

    def answer(self, request: PartsRequest, now: int = 0) -> PartsReply:
        """As a shell performs what the member says."""
        for effect in self.serving.answer(b"", request, now):
            match effect:
                case Hold():
                    self.storage.write([effect])
                case Send(_, PartsReply() as reply):
                    return reply
                case SendParts(_, height, wanted):
                    parts = reading.read_parts(self.storage, height, wanted)
                    self.parts_in_an_answer.append(len(parts))
                    return PartsReply(height, parts)
        raise AssertionError("no answer")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    found = Source(tmp_path / "source.db")
    with closing(found.storage):
        yield found


def beginner(source: Source, peers: Sequence[bytes] = PEERS[:3], height: int = 0) -> TakingOver:
    """That has heard of its peers' heights."""
    found = TakingOver(source.shard.electorate, height, 2 * INTERVAL)
    for peer in peers:
        found.heard(peer, len(source.shard.chain))
    return found


def requests(effects: Sequence[Send | BeginHandoff]) -> Sent:
    return {effect.peer: effect.message for effect in effects if isinstance(effect, Send)}  # type: ignore[misc]


def chosen(source: Source, peers: Sequence[bytes] = PEERS[:3]) -> TakingOver:
    """One that all peers have offered the newest checkpoint, at 0 ms."""
    found = beginner(source, peers)
    assert requests(found.next_requests(0)) == dict.fromkeys(peers, CheckpointRequest(0))
    for peer in peers:
        found.offered(peer, source.offer, 0)
    assert found.next_requests(0) == [BeginHandoff()]
    return found


def answered(source: Source, member: TakingOver, sent: Sent, now: int) -> list[StoreParts]:
    stored = []
    for peer, request in sent.items():
        assert isinstance(request, PartsRequest)
        stored += member.received(peer, source.answer(request, now), now)
    return stored


def run(source: Source, member: TakingOver, start: int = 0) -> tuple[list[StoreParts], int]:
    """Until it has everything: what is to be stored, and ms."""
    stored: list[StoreParts] = []
    now = start
    while not member.is_whole:
        now = max(now + 1, member.deadline)
        stored += answered(source, member, requests(member.next_requests(now)), now)
        assert now < start + 60_000
    return stored, now - start


# -- all is well -------------------------------------------------------------------------------------------------------


def test_a_state_taken_over_is_the_one_handed_over_and_goes_on_the_same(source: Source, tmp_path: Path) -> None:
    """Part for part, while the chain goes on; what it stores, brought back, executes the blocks that follow to the same roots."""
    member = chosen(source)
    target, now, asked = Storage(tmp_path / "target.db", source.network.genesis.network), 0, set()
    target.write([BeginHandoff()])
    while not member.is_whole:
        now = max(now + 1, member.deadline)
        sent = requests(member.next_requests(now))
        asked |= {frozenset(sent)} if len(sent) > 1 else set()
        before = member.progress
        target.write(answered(source, member, sent, now))
        assert before <= member.progress <= 1000
        source.extend()
    assert member.chosen is not None
    assert asked, "several are asked at once"
    assert member.progress == 1000
    assert member.rows > 250
    assert source.shard.state.certified is not None
    assert source.shard.state.certified.height > member.chosen.header.height, "there is a newer one meanwhile"
    target.write([FinishHandoff(member.chosen)])
    state = recover(target, source.shard.rules, source.shard.electorate).state
    height = state.height
    assert (height, state.state_root) == (member.chosen.header.height, source.shard.roots[height])
    for later in range(height + 1, len(source.shard.chain) + 1):
        block = source.shard.chain[later - 1]
        commit = Commit(later, later, block, encode(block), (), included=source.shard.included[later])
        target.write([commit])
    recovered = recover(target, source.shard.rules, source.shard.electorate)
    assert recovered.state.state_root == source.shard.state.state_root
    assert recovered.state.totals() == source.shard.state.totals()
    target.close()


def test_few_places_are_open_at_a_time(source: Source) -> None:
    member, most, now = chosen(source), 0, 0
    while not member.is_whole:
        now = max(now + 1, member.deadline)
        answered(source, member, requests(member.next_requests(now)), now)
        most = max(most, len(member._expected))
    assert most < 100
    assert max(source.parts_in_an_answer) > 1


def test_who_is_not_far_behind_asks_for_no_state(source: Source) -> None:
    assert beginner(source, height=1).next_requests(0) == []
    far = beginner(source, height=1)
    far.heard(PEERS[0], 1 + FAR_BEHIND)
    assert requests(far.next_requests(0)) == {PEERS[0]: CheckpointRequest(1)}
    young = TakingOver(source.shard.electorate, 0, 2 * INTERVAL)
    young.heard(PEERS[0], 2 * INTERVAL - 1)
    assert young.next_requests(0) == [], "nobody can have a certified checkpoint"


def test_who_was_handed_a_state_asks_for_the_blocks_since_however_many_as_long_as_some_come(source: Source) -> None:
    """To hand it over took so long that the chain is far ahead again: so would the next one."""
    member, height = TakingOver(source.shard.electorate, 6, 2 * INTERVAL, is_handed_over=True), 10 * FAR_BEHIND
    for now in range(0, 90_000, 10_000):
        member.heard(PEERS[0], height)
        member.moved(6 + now // 10)
        assert member.next_requests(now) == []
        assert not member.waits(now), "blocks are asked for"
    assert member.next_requests(94_999) == []
    assert requests(member.next_requests(95_000)) == {PEERS[0]: CheckpointRequest(8006)}, "they are not kept any more"


def test_who_has_caught_up_after_a_handoff_takes_over_another_state_when_it_falls_far_behind(source: Source) -> None:
    member = TakingOver(source.shard.electorate, 6, 2 * INTERVAL, is_handed_over=True)
    member.heard(PEERS[0], 6 + FAR_BEHIND)
    assert member.next_requests(0) == []
    member.moved(7)
    member.heard(PEERS[0], 7 + FAR_BEHIND)
    assert requests(member.next_requests(1)) == {PEERS[0]: CheckpointRequest(7)}


def test_who_gets_far_by_itself_lets_go_of_the_state(source: Source) -> None:
    member = chosen(source)
    member.moved(source.offer.header.height)
    assert member.chosen is None
    assert not member.waits(1)
    assert member.next_requests(200) == []


# -- whom to believe ---------------------------------------------------------------------------------------------------


def test_the_highest_checkpoint_offered_is_chosen_and_nobody_is_waited_for_long(source: Source) -> None:
    member = beginner(source)
    sent = member.next_requests(0)
    assert len(sent) == 3
    member.offered(PEERS[0], source.offers[min(source.offers)], 10)
    assert member.next_requests(20) == [], "a better one may come"
    assert member.waits(20)
    member.offered(PEERS[1], source.offer, 30)
    assert member.deadline <= 510
    assert member.next_requests(509) == []
    assert member.next_requests(510) == [BeginHandoff()], "the third does not answer"
    assert member.chosen == source.offer


def test_what_one_peer_alone_offers_is_not_chosen_before_what_f_plus_1_offer(source: Source) -> None:
    member, older = beginner(source), source.offers[min(source.offers)]
    member.next_requests(0)
    for peer, offer in zip(PEERS, (older, source.offer, older), strict=False):
        member.offered(peer, offer, 1)
    assert member.next_requests(2) == [BeginHandoff()]
    assert member.chosen == older


def test_an_offer_nobody_asked_for_or_that_is_not_far_ahead_is_ignored_and_a_false_one_is_a_lie(source: Source) -> None:
    member = beginner(source, PEERS[:2])
    member.offered(PEERS[0], source.offer, 0)
    member.next_requests(0)
    with pytest.raises(Forged):
        member.offered(PEERS[0], structs.replace(source.offer, root=bytes(32)), 1)
    member.offered(PEERS[0], source.offer, 1)
    member.moved(source.offer.header.height + 1)
    member.offered(PEERS[1], source.offer, 1)
    assert member.next_requests(2_000) == []
    assert member.chosen is None


def wrong_rows(part: Rows) -> Part:
    name, value = part.rows[0]
    return Rows(part.place, ((name, bytes([value[0] ^ 1]) + value[1:]), *part.rows[1:]))


LIES: dict[str, Callable[[Part], Part]] = {
    "another value": lambda part: wrong_rows(part) if isinstance(part, Rows) else part,
    "a row less": lambda part: Rows(part.place, part.rows[1:]) if isinstance(part, Rows) else part,
    "another order": lambda part: Rows(part.place, part.rows[::-1]) if isinstance(part, Rows) else part,
    "a row twice": lambda part: Rows(part.place, (part.rows[0], *part.rows)) if isinstance(part, Rows) else part,
    "other hashes": lambda part: Branching(part.place, part.children[::-1]) if isinstance(part, Branching) else part,
    "rows for ids": lambda part: Rows(part.place, ()) if isinstance(part, Ids) else part,
    "ids for rows": lambda part: Ids(part.place, b"") if isinstance(part, Rows) else part,
    "ids in another order": lambda part: Ids(part.place, part.ids[32:] + part.ids[:32]) if isinstance(part, Ids) else part,
    "an id less": lambda part: Ids(part.place, part.ids[32:]) if isinstance(part, Ids) else part,
}


@pytest.mark.parametrize("lie", LIES)
def test_who_sends_another_part_is_a_liar_and_another_is_asked_for_the_same(source: Source, lie: str) -> None:
    member, now, lies = chosen(source), 0, 0
    while not member.is_whole:
        now = max(now + 1, member.deadline)
        sent = requests(member.next_requests(now))
        for peer, request in sent.items():
            assert isinstance(request, PartsRequest)
            reply = source.answer(request, now)
            forged = PartsReply(reply.height, tuple(map(LIES[lie], reply.parts)))
            if peer == PEERS[0] and forged != reply:
                rows = member.rows
                with pytest.raises(Forged):
                    member.received(peer, forged, now)
                assert member.rows == rows, "nothing of it is taken"
                lies += 1
                member.lost(peer)
            else:
                member.received(peer, reply, now)
        assert now < 60_000
    assert lies == 1, "it is gone then"
    assert member.rows > 250


def several(source: Source, member: TakingOver) -> tuple[bytes, list[Part]]:
    """A peer that was asked for several parts, and what they are; at 400 ms."""
    answered(source, member, requests(member.next_requests(200)), 200)
    ((peer, request),) = requests(member.next_requests(400)).items()
    assert isinstance(request, PartsRequest)
    parts = [part for place in request.places for part in source.answer(PartsRequest(request.height, (place,))).parts]
    assert len(parts) > 3
    return peer, parts


def test_a_part_twice_in_an_answer_is_a_lie(source: Source) -> None:
    member = chosen(source)
    peer, parts = several(source, member)
    with pytest.raises(Forged):
        member.received(peer, PartsReply(source.offer.header.height, (parts[0], *parts)), 400)
    assert member.rows == 0


def test_more_parts_than_fit_an_answer_are_a_lie(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """To check them all would hold the loop."""
    member, height = chosen(source), source.offer.header.height
    peer, parts = several(source, member)
    monkeypatch.setattr(taking_over, "MAX_PART_ROWS", work_of(parts[0]) + work_of(parts[1]))
    with pytest.raises(Forged):
        member.received(peer, PartsReply(height, tuple(parts[:3])), 400)
    assert member.received(peer, PartsReply(height, tuple(parts[:2])), 400)


def test_parts_nobody_asked_for_are_ignored(source: Source) -> None:
    member = chosen(source)
    sent = requests(member.next_requests(200))
    ((peer, request),) = sent.items()
    assert isinstance(request, PartsRequest)
    reply = source.answer(request)
    other = next(one for one in PEERS[:3] if one != peer)
    assert member.received(other, reply, 200) == []
    assert member.received(peer, PartsReply(reply.height + 1, reply.parts), 200) == []
    assert member.received(peer, PartsReply(reply.height, (Rows(b"\1", ()),)), 200) == []
    run(source, member, 200)


def test_who_is_told_the_hashes_below_a_part_instead_of_its_rows_is_given_what_is_below_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (checkpoints, reading):
        monkeypatch.setattr(module, "MAX_PART_ROWS", MAX_PART_ROWS)  # all rows are one part
    source = Source(tmp_path / "source.db")
    with closing(source.storage):
        member = chosen(source)
        ((peer, request),) = requests(member.next_requests(200)).items()
        assert isinstance(request, PartsRequest)
        (whole,) = source.answer(request).parts
        assert isinstance(whole, Rows)
        tree = updated(EMPTY_TREE, [(name, Raw(value)) for name, value in whole.rows])
        told = Branching(b"", branches(tree, len(whole.rows) - 1)[b""])
        member.received(peer, PartsReply(request.height, (told,)), 200)
        run(source, member, 200)
        assert member.rows == len(whole.rows)


def test_who_is_silent_is_asked_ever_more_rarely_and_nobody_waits_for_it(source: Source) -> None:
    member, times = beginner(source, PEERS[:2]), [0]
    assert requests(member.next_requests(0))
    assert member.waits(2_999)
    assert not member.waits(3_000)
    while len(times) < 4:
        now = member.deadline
        times += [now] * bool(requests(member.next_requests(now)))
    assert [second - first for first, second in pairwise(times)] == [4_000, 5_000, 7_000]


def test_who_has_a_state_asks_for_blocks_while_an_offer_is_slow_and_who_has_none_does_not(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_over, "FAR_BEHIND", 1)
    empty, behind = beginner(source), beginner(source, height=1)
    assert requests(empty.next_requests(0))
    assert requests(behind.next_requests(0))
    assert empty.waits(500)
    assert behind.waits(499)
    assert not behind.waits(500)


def test_who_has_nothing_does_not_wait_long_for_the_only_one_that_claims_to_have_a_state(source: Source) -> None:
    member = beginner(source, PEERS[:1])
    assert requests(member.next_requests(0))
    assert member.waits(499)
    assert member.deadline == 500
    assert not member.waits(500), "it may be a liar"
    member.heard(PEERS[1], len(source.shard.chain))
    assert requests(member.next_requests(600))
    assert member.waits(2_999)


def test_a_silent_peer_and_one_that_lost_the_checkpoint_do_not_stop_it(source: Source) -> None:
    member, now, stored = chosen(source), 0, 0
    while not member.is_whole:
        now = max(now + 1, member.deadline)
        for peer, request in requests(member.next_requests(now)).items():
            assert isinstance(request, PartsRequest)
            if peer == PEERS[1]:
                member.received(peer, PartsReply(request.height, ()), now)
            elif peer == PEERS[2]:
                stored += len(member.received(peer, source.answer(request, now), now))
        assert member.chosen == source.offer
        assert now < 60_000
    assert stored


def test_when_f_plus_1_do_not_have_it_any_more_a_newer_one_is_chosen(source: Source) -> None:
    member = chosen(source)
    answered(source, member, requests(member.next_requests(200)), 200)
    first, now, without = source.offer, 200, set[bytes]()
    while member.chosen is not None:
        assert len(without) < 2, "f + 1"
        now = member.deadline
        for peer, request in requests(member.next_requests(now)).items():
            assert isinstance(request, PartsRequest)
            member.received(peer, PartsReply(request.height, ()), now)
            without.add(peer)
        member.next_requests(now)
    while source.offer == first:
        source.extend()
    for peer in PEERS[:3]:
        member.heard(peer, len(source.shard.chain))
    source.serving = HandingOver(source.shard.state)
    began = False
    assert not member.waits(now), "blocks are asked for meanwhile"
    while not began:
        now = max(now + 1, member.deadline)
        effects = member.next_requests(now)
        began = BeginHandoff() in effects
        for peer, request in requests(effects).items():
            if isinstance(request, CheckpointRequest):
                member.offered(peer, source.offer, now)
        assert now < 30_000
    assert member.chosen == source.offer
    assert member.rows == 0
    run(source, member, now)


def test_when_nobody_sends_anything_for_long_another_one_is_chosen(source: Source) -> None:
    member = chosen(source)
    member.next_requests(200)
    member.next_requests(14_999)
    assert member.chosen is not None
    member.next_requests(15_000)
    assert member.chosen is None


def test_no_wake_up_is_due_at_once(source: Source) -> None:
    """That would keep a processor busy for nothing."""
    for member in (beginner(source), chosen(source)):
        now = 300
        for _ in range(40):
            member.next_requests(now)
            assert member.deadline > now
            now = member.deadline


# -- within a node -----------------------------------------------------------------------------------------------------


def plain(effects: Sequence[NodeEffect]) -> list[ChainEffect]:
    return [effect.effect for effect in effects if isinstance(effect, In)]


class Beginner:
    """The last member of the source's shard, on an empty database; the others hand it what it asks for."""

    def __init__(self, source: Source, path: Path) -> None:
        self.source, self.storage, self.now = source, Storage(path, source.network.genesis.network), 0
        self.key, network = source.shard.members[3], source.network
        self.storage.write([Pledge(1, network.secrets[self.key.public], network.roll.hash)])
        self.chain = source.shard.electorate.chain
        self.mind = Node(network.genesis, self.key, "n", ("/ip4/127.0.0.1/tcp/1",), Stored(bytes(32), network.opening))
        self.recover(plain(self.mind.start()))

    def handle(self, event: ChainEvent | Message | Tick) -> list[ChainEffect]:
        """What follows for the chain; what binds it is stored."""
        told = event if isinstance(event, Message | Tick) else For(self.chain, event)
        effects = plain(self.mind.handle(told, at(self.now)))
        self.storage.write([effect for effect in effects if isinstance(effect, LoseVotes)])
        return effects

    def hear(self, peer: int, message: PeerMessage) -> list[ChainEffect]:
        return self.handle(Message(self.source.shard.electorate.keys[peer], encode(Frame(*self.chain, message))))

    def recover(self, effects: Sequence[ChainEffect]) -> list[ChainEffect]:
        (wanted,) = [effect for effect in effects if isinstance(effect, Recover)]
        return self.handle(recover(self.storage, wanted.rules, wanted.electorate))

    def take_over(self) -> list[ChainEffect]:
        """Until the state is stored: the effects of the last event."""
        waiting = [effect for peer in range(3) for effect in self.hear(peer, Standing(len(self.source.shard.chain), 1))]
        while True:
            effects, waiting = waiting, []
            self.storage.write([effect for effect in effects if isinstance(effect, BeginHandoff | StoreParts | FinishHandoff)])
            if any(isinstance(effect, FinishHandoff) for effect in effects):
                return effects
            for effect in effects:
                match effect:
                    case Send(peer, CheckpointRequest()):
                        waiting += self.hear(self.source.shard.electorate.keys.index(peer), CheckpointReply(self.source.offer))
                    case Send(peer, PartsRequest() as request):
                        waiting += self.hear(self.source.shard.electorate.keys.index(peer), self.source.answer(request, self.now))
            self.now += 20
            waiting += self.handle(Tick())
            assert self.now < 60_000


@pytest.fixture
def member(source: Source, tmp_path: Path) -> Iterator[Beginner]:
    found = Beginner(source, tmp_path / "beginner.db")
    with closing(found.storage):
        yield found


def test_a_member_votes_on_after_it_took_over(member: Beginner) -> None:
    effects = member.take_over()
    assert isinstance(effects[-1], Recover)
    assert member.mind.replica is None
    assert member.chain in member.mind.duties, "what else it said meanwhile still goes to its committee"
    member.recover(effects)
    assert member.mind.replica is not None
    assert member.mind.replica.state.height == member.source.offer.header.height
    assert member.mind.replica.consensus.has_votes


def test_a_member_that_took_over_asks_for_blocks_though_it_is_far_behind_again(member: Beginner) -> None:
    member.recover(member.take_over())
    effects = member.hear(0, Standing(member.source.offer.header.height + 2 * FAR_BEHIND, 1))
    asked = [effect.message for effect in effects if isinstance(effect, Send)]
    assert any(isinstance(message, ChainRequest) for message in asked), asked
    assert not any(isinstance(message, CheckpointRequest) for message in asked)


def test_a_member_that_lost_its_votes_has_not_got_them_after_it_took_over(member: Beginner) -> None:
    """Else it would sign what contradicts them."""
    vote = sign_vote(member.key, 3, member.source.shard.electorate, VoteKind.NOTARIZE, 10_000, bytes(32))
    assert LoseVotes() in member.hear(0, Ballot(vote))
    member.recover(member.take_over())
    assert member.mind.replica is not None
    assert not member.mind.replica.consensus.has_votes


def test_a_late_answer_to_the_replica_before_is_none_to_the_one_that_took_over(member: Beginner) -> None:
    network = member.source.network
    payment = encode(network.pay(network.issuers["USD"], key("payee 1"), 1, salt=9))
    (first,) = checks(member.handle(Transactions((payment,))))
    member.recover(member.take_over())
    (second,) = checks(member.handle(Transactions((payment,))))
    assert first.token != second.token


# -- handing over ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_held_from_the_first_request_for_a_part_until_nobody_asks(source: Source) -> None:
    serving, first = source.serving, source.offer
    (offered,) = serving.answer(PEERS[0], CheckpointRequest(0), 0)
    assert offered == SendCheckpoint(PEERS[0], first.header.height, first.certifying.height, first.root)
    assert serving.held is None
    hold, _ = serving.answer(PEERS[0], PartsRequest(first.header.height, (b"",)), 0)
    assert hold == Hold(first.header.height)
    while source.offer == first:
        source.extend()
    assert serving.answer(PEERS[1], CheckpointRequest(0), 1_000) == [structs.replace(offered, peer=PEERS[1])], "shared"
    (parts,) = serving.answer(PEERS[1], PartsRequest(first.header.height, (b"",)), 5_000)
    assert isinstance(parts, SendParts)
    assert serving.poll(14_999) == []
    assert serving.poll(15_000) == [Hold(None)]
    gone = serving.answer(PEERS[1], PartsRequest(first.header.height, (b"",)), 15_001)
    assert gone == [Send(PEERS[1], PartsReply(first.header.height, ()))]


@pytest.mark.parametrize("place", [b"\x10", b"\0\0\x10\0", b"\x10" * 64, b"junk"])
def test_who_asks_for_a_part_that_there_is_not_is_dropped_and_nothing_is_read(source: Source, place: bytes) -> None:
    effects = source.serving.answer(PEERS[0], PartsRequest(source.offer.header.height, (b"", place)), 0)
    assert not [effect for effect in effects if isinstance(effect, SendParts)]
    assert Ban(PEERS[0], "it asked for parts that there are not") in effects


def test_another_checkpoint_is_held_once_the_first_is_left_for_a_while(source: Source) -> None:
    serving, first = source.serving, source.offer.header.height
    serving.answer(PEERS[0], PartsRequest(first, (b"",)), 0)
    while source.offer.header.height == first:
        source.extend()
    newest = source.offer.header.height
    (offered,) = serving.answer(PEERS[0], CheckpointRequest(first), 1)
    assert isinstance(offered, SendCheckpoint)
    assert offered.height == newest, "the one that is held does not help it"
    assert len(serving.answer(PEERS[0], PartsRequest(newest, (b"",)), 1_999)) == 1, "it is there, but not held"
    assert serving.answer(PEERS[0], PartsRequest(newest, (b"",)), 2_000)[0] == Hold(newest)
    assert serving.answer(PEERS[0], PartsRequest(first, (b"",)), 9_000) == [Send(PEERS[0], PartsReply(first, ()))]


def test_nothing_is_held_for_ever(source: Source) -> None:
    serving, height = source.serving, source.offer.header.height
    now = 0
    while True:
        serving.answer(PEERS[0], PartsRequest(height, (b"",)), now)
        if serving.poll(now):
            break
        now += 5_000
    assert now == HELD_AT_MOST


def test_nobody_has_a_checkpoint_before_one_is_certified(tmp_path: Path) -> None:
    young = Source(tmp_path / "young.db", blocks=2 * INTERVAL - 1)
    with closing(young.storage):
        assert young.serving.answer(PEERS[0], CheckpointRequest(0), 0) == []
        assert young.answer(PartsRequest(INTERVAL, (b"",))) == PartsReply(INTERVAL, ())


def test_blocks_are_caught_up_with_from_the_checkpoint_on(source: Source) -> None:
    catching_up = CatchingUp(source.offer.header.height, 0)
    catching_up.heard(PEERS[0], source.offer.header.height + 100)
    assert catching_up.next_request(1) == (PEERS[0], source.offer.header.height + 1)


def test_what_is_here_is_told_a_few_times(source: Source) -> None:
    member, told, now = chosen(source), list[str](), 0
    while not member.is_whole:
        now = max(now + 1, member.deadline)
        answered(source, member, requests(member.next_requests(now)), now)
        told += [line.text for line in member.news()]
    assert 2 <= len(told) <= 12
    assert told[-1].endswith(f"100 %, {member.rows} rows")
    assert member.news() == []
