"""The next document: seats and ranges follow from this epoch's document and the register, and from nothing else."""

from itertools import chain, combinations, pairwise
from random import Random

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from node.protocol.assignment import cut_of, next_document
from node.protocol.change import Register, RegisterPhase
from node.protocol.codec import decode, encode
from node.protocol.crypto import digest
from node.protocol.epoch import Committee, EpochDocument, InvalidDocument, Registration
from node.protocol.genesis import Parameters
from node.protocol.limits import MAX_FRAME_BYTES, MAX_SHARDS
from tests.histories import Step, first, histories, register_of, registration
from tests.vectors import assignment_reference

FOURS = Parameters(committee_size=4)
Keys = set[bytes]


def following(previous: EpochDocument, register: Register, size: int = 4) -> EpochDocument:
    return next_document(previous, register, 1, Parameters(committee_size=size))


def members(document: EpochDocument) -> dict[int, Keys]:
    return {shard: set(electorate.keys) for shard, electorate in document.electorates.items()}


def number(node: Registration) -> int:
    return int(node.name.removeprefix("node-"))


def there(document: EpochDocument) -> Keys:
    return set().union(*members(document).values()) | {r.public_key for r in document.standby}


# -- what holds in every history -------------------------------------------------------------------------------------------


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(histories())
def test_every_committee_is_full_and_who_told_has_one_seat_or_stands_by(history: tuple[int, list[Step]]) -> None:
    size, steps = history
    for previous, register, document in steps:
        assert all(len(committee.members) == size for committee in document.committees)
        places = [m.public_key for c in document.committees for m in c.members] + [r.public_key for r in document.standby]
        assert sorted(places) == [public for public, _ in register.secrets]
        assert document.roll.registrations == register.registrations
        assert (document.number, document.previous) == (previous.number + 1, previous.hash)
        assert document.network_id == previous.network_id
        assert decode(EpochDocument, encode(document), MAX_FRAME_BYTES) == document
        told = len(register.secrets) // size
        assert len(document.committees) == min(told, 2 * len(previous.committees))


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(histories())
def test_ranges_partition_the_space_and_each_is_that_of_its_origins(history: tuple[int, list[Step]]) -> None:
    for previous, _, document in history[1]:
        shards = [committee.shard for committee in document.committees]
        assert shards == sorted(set(shards)), "by shard"
        assert {origin for origins in document.origins for origin in origins} == set(previous.shards.shards)
        for shard in previous.shards.shards:
            low, high = previous.shards.range_of(shard)
            children = document.children_of(shard)
            assert shard in children or shard > min(document.origins_of(*children)), "the lower number goes on"
            cut = cut_of(previous, document, shard)
            assert bool(cut) == (len(children) == 2)
            if cut:
                lower, upper = sorted(children, key=lambda child: document.shards.range_of(child))
                assert lower == shard
                assert upper not in previous.shards.shards
                assert document.shards.range_of(lower)[0] == low
                assert document.shards.range_of(upper) == (cut, high)
        for shard in shards:
            origins = [previous.shards.range_of(origin) for origin in document.origins_of(shard)]
            low, high = document.shards.range_of(shard)
            assert origins[0][0] <= low <= high <= origins[-1][1]
            assert all(int.from_bytes(a[1], "big") + 1 == int.from_bytes(b[0], "big") for a, b in pairwise(origins))
            assert len(origins) == 1 or (origins[0][0], origins[-1][1]) == (low, high)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(histories())
def test_what_comes_of_a_shard_is_kept_by_who_kept_it(history: tuple[int, list[Step]]) -> None:
    """The assignment takes no more of a kept shard than it tolerates to lose, with those that left; of halves and pairs there is
    somebody who has the state."""
    size, steps = history
    tolerated = (size - 1) // 3
    for previous, _, document in steps:
        now, present = members(document), there(document)
        for shard, before in members(previous).items():
            children, stayers = document.children_of(shard), before & present
            lost = len(before - now[children[0]])
            if len(children) == 1 and len(document.origins_of(children[0])) == 1:
                assert lost <= max(tolerated, len(before - present))
            if size > 1 or len(document.origins_of(children[0])) == 1:
                assert sum(bool(before & now[child]) for child in children) == min(len(stayers), len(children))
            if len(children) == 2:
                assert sorted(len(stayers & now[child]) for child in children)[0] >= len(stayers) // 2


@pytest.mark.long
@settings(deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_were_written_down_moves_nobody(history: tuple[int, list[Step]], random: Random) -> None:
    size, steps = history
    for previous, register, document in steps:
        registrations, secrets, loads = map(list, (register.registrations, register.secrets, register.loads))
        for shuffled in (registrations, secrets, loads):
            random.shuffle(shuffled)
        mixed = replace(register, registrations=tuple(registrations), secrets=tuple(secrets), loads=tuple(loads))
        assert following(previous, mixed, size) == document


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(histories())
def test_a_second_implementation_of_the_text_comes_to_the_same(history: tuple[int, list[Step]]) -> None:
    size, steps = history
    for previous, register, document in steps:
        plain = (msgpack.unpackb(encode(previous)), msgpack.unpackb(encode(register)))
        assert assignment_reference.next_document(*plain, 1, size) == msgpack.unpackb(encode(document))


# -- what the draw depends on ----------------------------------------------------------------------------------------------


def test_puppets_that_know_all_other_secrets_choose_among_no_more_outcomes_than_there_are_subsets_of_them() -> None:
    """And who keeps silent has no seat. To tell and then say farewell, or to be ready or not, gives no further choice."""
    previous, puppets = first(2, 4, 12), (0, 1, 2)
    outcomes = {}
    for silent in chain.from_iterable(combinations(puppets, n) for n in range(4)):
        register = register_of(2, range(12), silent)
        document = following(previous, register)
        outcomes[document.randomness] = document
        keys = tuple(sorted(registration(puppet, 2).public_key for puppet in puppets))
        later = replace(register, phase=RegisterPhase.CLOSED, farewells=keys, ready=keys, failures=3, called=True, since=9)
        assert following(previous, later) == document
        assert all(document.seat_of(registration(puppet, 2).public_key) is None for puppet in silent)
    assert len(outcomes) == 8


def test_the_draw_is_of_this_epoch_and_this_roll() -> None:
    """So no secret can be tried out before the roll is closed."""
    previous, register = first(2, 4, 9), register_of(2, range(9))
    document = following(previous, register)
    others = [
        following(first(2, 4, 8), register),
        following(previous, register_of(2, range(10), silent=[9])),
        next_document(previous, register_of(2, range(9), attempt=2), 2, FOURS),
    ]
    assert len({document.randomness, *(other.randomness for other in others)}) == 4


# -- ranges ----------------------------------------------------------------------------------------------------------------


def loaded(committees: int, nodes: int, *loads: int) -> EpochDocument:
    """What follows on an epoch of so many committees of one, when so many nodes are there and the shards have these loads."""
    return following(first(committees, 1, committees), register_of(2, range(nodes), loads=dict(enumerate(loads))), 1)


@pytest.mark.parametrize(
    ("loads", "nodes", "origins"),
    [
        ((1, 3, 3), 4, ((0,), (1,), (2,), (1,))),
        ((1, 3, 4), 5, ((0,), (1,), (2,), (1,), (2,))),
        ((0, 0), 3, ((0,), (1,), (0,))),
        ((0, 0), 9, ((0,), (1,), (0,), (1,))),
    ],
)
def test_with_more_nodes_the_shards_with_the_greatest_loads_split(
    loads: tuple[int, ...], nodes: int, origins: tuple[tuple[int, ...], ...]
) -> None:
    assert loaded(len(loads), nodes, *loads).origins == origins


@pytest.mark.parametrize(
    ("loads", "nodes", "origins"),
    [
        ((2, 1, 1, 2), 3, ((0,), (1, 2), (3,))),
        ((1, 1, 1, 1), 3, ((0, 1), (2,), (3,))),
        ((2, 0, 0, 2), 2, ((0, 1), (2, 3))),
        ((9, 0, 0, 9, 0), 3, ((0,), (1, 2), (3, 4))),
        ((0, 9, 9), 2, ((0, 1), (2,))),
    ],
)
def test_with_fewer_nodes_the_neighbours_with_the_smallest_load_merge(
    loads: tuple[int, ...], nodes: int, origins: tuple[tuple[int, ...], ...]
) -> None:
    """But never so that another shard is left without a neighbour that has to merge, too."""
    assert loaded(len(loads), nodes, *loads).origins == origins


def test_a_range_of_one_address_does_not_split() -> None:
    space = (1 << 160) - 1
    zero, one, *_ = first(2, 1, 2).committees
    previous = replace(first(2, 1, 2), committees=(zero, Committee(1, space.to_bytes(20, "big"), one.members)))
    document = following(previous, register_of(2, range(4), loads={1: 9}), 1)
    assert document.origins == ((0,), (1,), (0,))
    assert len(document.standby) == 1


def test_there_are_no_more_shards_than_have_numbers() -> None:
    document = following(first(MAX_SHARDS - 1, 1, MAX_SHARDS - 1), register_of(2, range(MAX_SHARDS + 1)), 1)
    assert document.shards.shards == tuple(range(MAX_SHARDS))
    assert len(document.standby) == 1


def test_the_upper_half_gets_the_lowest_number_that_is_not_in_use() -> None:
    two, six = loaded(3, 2, 0, 0, 9), range(6)
    assert [committee.shard for committee in two.committees] == [0, 2]
    four = following(two, register_of(3, six[:4]), 1)
    assert [(committee.shard, origins) for committee, origins in zip(four.committees, four.origins, strict=True)] == [
        (0, (0,)),
        (1, (0,)),
        (2, (2,)),
        (3, (2,)),
    ]


# -- seats -----------------------------------------------------------------------------------------------------------------


def test_one_of_a_full_committee_moves_and_not_back_to_where_it_comes_from() -> None:
    previous = first(3, 4, 12)
    document = following(previous, register_of(2, range(12)))
    before, now = members(previous), members(document)
    assert {shard: len(before[shard] - now[shard]) for shard in before} == {0: 1, 1: 1, 2: 1}


def test_a_committee_that_lost_a_member_loses_no_other_by_assignment() -> None:
    previous = first(1, 4, 4)
    document = following(previous, register_of(2, range(8), silent=[0]))
    assert members(previous)[0] - members(document)[0] == {registration(0, 2).public_key}


def test_who_moves_comes_back_if_nobody_else_is_left() -> None:
    previous = first(1, 4, 4)
    assert members(following(previous, register_of(2, range(4)))) == members(previous)


def test_newcomers_take_seats_of_every_committee_that_has_free_ones() -> None:
    """Two committees that lost half of their members, and as many newcomers: each gets two, whatever the draw."""
    previous = first(2, 4, 8)
    gone = {number(m) for c in previous.committees for m in c.members[:2]}
    document = following(previous, register_of(2, set(range(12)) - gone))
    newcomers = {registration(node, 2).public_key for node in range(8, 12)}
    assert [len(keys & newcomers) for keys in members(document).values()] == [2, 2]


def test_seats_are_filled_in_turn() -> None:
    """The first of the pool, in seat order, goes to one shard, the next to the other."""
    previous = first(2, 4, 8)
    gone = {number(m) for c in previous.committees for m in c.members[:2]}
    document = following(previous, register_of(2, set(range(14)) - gone))
    pool = [registration(node, 2).public_key for node in range(8, 14)]
    pool.sort(key=lambda public: digest("seat", document.randomness, public))
    now = members(document)
    assert [{0, 1} & {shard for shard in now if public in now[shard]} for public in pool] == [{0}, {1}, {0}, {1}, set(), set()]
    assert [r.public_key for r in document.standby] == pool[4:]


@pytest.mark.parametrize(
    ("stayers", "seats"), [((5, 4), (3, 2)), ((4, 5), (3, 2)), ((5, 1), (4, 1)), ((1, 5), (1, 4)), ((5, 0), (5, 0))]
)
def test_two_that_merge_share_the_seats_and_one_fills_what_the_other_leaves_free(
    stayers: tuple[int, int], seats: tuple[int, int]
) -> None:
    previous = first(2, 5, 10)
    staying = [number(m) for c, count in zip(previous.committees, stayers, strict=True) for m in c.members[:count]]
    now = members(following(previous, register_of(2, [*staying, 10, 11, 12][:9]), 5))
    assert tuple(len(now[0] & before) for before in members(previous).values()) == seats


def test_members_are_in_seat_order() -> None:
    document = following(first(2, 4, 9), register_of(2, range(9)))
    for electorate in document.electorates.values():
        assert list(electorate.keys) == sorted(electorate.keys, key=lambda k: digest("seat", document.randomness, k))


# -- what is no document ---------------------------------------------------------------------------------------------------

REGISTER = register_of(2, range(8))


@pytest.mark.parametrize(
    ("register", "why"),
    [
        (register_of(2, range(8), silent=range(5)), "1 committees need 4 nodes, 3 told"),
        (register_of(3, range(8)), "another network, epoch or attempt"),
        (register_of(2, range(8), attempt=2), "another network, epoch or attempt"),
        (replace(REGISTER, registrations=(*REGISTER.registrations, REGISTER.registrations[0])), "a key is registered twice"),
        (replace(REGISTER, registrations=REGISTER.registrations[1:]), "not registered"),
        (
            replace(REGISTER, secrets=((REGISTER.secrets[0][0], bytes(32)), *REGISTER.secrets[1:])),
            "not the secret it committed to",
        ),
    ],
)
def test_what_contradicts_itself_or_leaves_a_seat_free_makes_no_document(register: Register, why: str) -> None:
    previous = first(2, 4, 8)
    following(previous, REGISTER)
    with pytest.raises(InvalidDocument, match=why):
        following(previous, register)
    with pytest.raises(assignment_reference.NoDocument):
        assignment_reference.next_document(msgpack.unpackb(encode(previous)), msgpack.unpackb(encode(register)), 1, 4)


def test_a_network_does_not_shrink_by_more_than_half_at_once() -> None:
    with pytest.raises(InvalidDocument, match="2 committees need 8 nodes, 7 told"):
        following(first(3, 4, 12), register_of(2, range(7)))
