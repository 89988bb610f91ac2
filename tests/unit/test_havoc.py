"""``scripts/chaos`` where committees change: what they bear, who comes and goes, and how the epochs are told of."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from node.protocol.crypto import ZERO_HASH
from node.protocol.epoch import Committee, EpochDocument, Registration
from node.protocol.genesis import Phase
from scripts.devnet.layout import Folder
from scripts.havoc import turnover
from scripts.havoc.burden import Burden, committees, most
from scripts.havoc.chaos import Chaos
from scripts.havoc.deposing import NAME, PHASES, Deposing
from scripts.havoc.run import parse
from scripts.havoc.story import story
from scripts.havoc.turnover import Turnover


def document(number: int, origins: tuple[tuple[int, ...], ...], *members: str, attempt: int = 1) -> EpochDocument:
    """One letter a node; one word a committee."""
    return EpochDocument(
        network=bytes(8),
        number=number,
        attempt=attempt,
        previous=ZERO_HASH,
        randomness=ZERO_HASH,
        committees=tuple(
            Committee(shard, bytes([shard]) + bytes(19), tuple(registration(name) for name in names))
            for shard, names in enumerate(members)
        ),
        standby=(),
        silent=(),
        secrets=(),
        origins=origins,
    )


def registration(name: str) -> Registration:
    return Registration(bytes(8), 1, 1, name.encode() * 33, name, ("/ip4/192.0.2.1/tcp/1",), bytes(8), ZERO_HASH)


FIRST = document(1, (), "abcd", "efgh")
NEXT = document(2, ((0,), (1,)), "abce", "dfgh")


def test_a_committee_bears_f_members_of_all_kinds_of_burden_together() -> None:
    burden = Burden()
    assert burden.bearable("abe", [FIRST]) == ["a", "e"]
    burden.leaving.add("b")
    assert burden.bearable("aef", [FIRST]) == ["e"]
    burden.down.add("e")
    assert burden.bearable("acfghb", [FIRST]) == ["b"], "who is a burden already is no further one"


def test_heirs_count_as_soon_as_they_are_known() -> None:
    burden = Burden()
    assert burden.bearable("ae", [FIRST]) == ["a", "e"]
    assert burden.bearable("ae", [FIRST, NEXT]) == ["a"]


def test_who_lost_its_vote_is_a_burden_until_it_can_have_another() -> None:
    burden = Burden()
    burden.lose_vote("a", 1)
    assert burden.bearable("be", [FIRST]) == ["e"]
    assert burden.bearable("be", [NEXT]) == ["b"]
    burden.lose_vote("a", 2)
    assert burden.bearable("be", [NEXT]) == []


def test_who_is_down_in_a_coming_committee_that_does_not_bear_it_comes_back() -> None:
    burden = Burden()
    burden.down |= {"a", "e"}
    assert burden.overburdened([FIRST]) == set()
    assert burden.overburdened([FIRST, NEXT]) == {"a", "e"}
    burden.leaving.add("e")
    burden.down = {"a"}
    assert burden.overburdened([FIRST, NEXT]) == {"a"}


def test_epochs_are_told_by_what_happened_between_them() -> None:
    split = document(2, ((0,), (1,), (0,)), "abci", "efgh", "dklm")
    merged = document(3, ((0, 2), (1,)), "abcd", "fghi", attempt=3)
    assert story([FIRST], 1) == {"epochs": 1, "splits": 0, "merges": 0, "moves": 0, "newcomers": 0, "called_off": 0}
    assert story([FIRST, split], 2) == {"epochs": 2, "splits": 1, "merges": 0, "moves": 0, "newcomers": 4, "called_off": 1}
    assert story([FIRST, split, merged], 1) == {
        "epochs": 3,
        "splits": 1,
        "merges": 1,
        "moves": 1,
        "newcomers": 4,
        "called_off": 2,
    }


def test_the_coordinator_is_killed_once_in_an_epoch_and_in_each_phase_in_turn() -> None:
    network: Any = Mock()
    observer: Any = SimpleNamespace(document=None, phase=Phase.MINING)
    deposing, now = Deposing(network, observer, 1), 0.0
    for number in range(1, 2 * len(PHASES) + 1):
        observer.document = SimpleNamespace(number=number)
        for phase in PHASES:
            observer.phase = phase
            assert len(list(deposing.tick(now))) == (network.kill.call_count > network.start.call_count)
            now += 100
            assert list(deposing.tick(now)) == []
    assert deposing.kills == dict.fromkeys(PHASES, 2)
    assert network.kill.call_count == network.start.call_count == 2 * len(PHASES)
    assert network.kill.call_args.args == ([NAME],)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A network of the first document whose newcomers are registered at once."""
    names = list("abcdefgh")
    told: list[str] = []
    observer = SimpleNamespace(document=FIRST, documents=[FIRST], answering=set(names), registered=set())
    network = SimpleNamespace(folder=Folder(tmp_path), nodes=names, start=Mock())

    def add(count: int) -> list[str]:
        added = [f"new-{i}" for i in range(count)]
        names.extend(added)
        return added

    network.add = add
    monkeypatch.setattr(turnover, "ask_to_leave", lambda _, chosen: told.extend(chosen))
    burden = Burden()
    turning = Turnover(cast(Any, network), cast(Any, observer), Mock(), burden, 1, 100, 2)
    return SimpleNamespace(turning=turning, observer=observer, names=names, told=told, burden=burden)


def test_in_each_epoch_nodes_are_launched_and_a_quarter_leaves_once_they_are_registered(scene: Any) -> None:
    assert list(scene.turning.tick(0)) == list(scene.turning.tick(29)) == []
    assert list(scene.turning.tick(31))
    assert (scene.turning.joined > 0, scene.told) == (True, [])
    scene.observer.registered = set(scene.names)
    assert list(scene.turning.tick(32))
    assert len(scene.told) == 2
    assert all(len(members & set(scene.told)) <= most(members) for members in committees(FIRST))
    assert list(scene.turning.tick(99)) == []
    assert scene.burden.leaving == set(scene.told)
    scene.names.remove(scene.told[0])
    assert list(scene.turning.gone()) == [f"{scene.told[0]} has left"]
    assert (scene.turning.left, scene.burden.leaving) == (1, {scene.told[1]})


def test_nobody_leaves_whom_a_committee_of_now_or_later_could_not_spare(scene: Any) -> None:
    scene.observer.documents = [FIRST, NEXT]
    scene.burden.down |= {"a"}
    list(scene.turning.tick(0))
    list(scene.turning.tick(31))
    list(scene.turning.tick(61))
    assert set(scene.told) <= set("fgh")
    assert len(scene.told) == 1


def test_options_of_epochs_are_checked() -> None:
    assert parse(["--epoch-seconds", "30"]).epoch_seconds == 30
    assert parse([]).epoch_seconds == 0
    for wrong in (["--epoch-seconds", "5"], ["--epoch-seconds", "30", "--namespaces"]):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_seats_are_those_of_the_epoch_and_every_committee_is_meant(tmp_path: Path) -> None:
    chaos = Chaos(cast(Any, SimpleNamespace(data=tmp_path)), Mock(), Mock())
    chaos._observer = cast(Any, SimpleNamespace(document=FIRST))
    assert chaos._sitting([(0, 1), (1, 3)]) == ["b", "h"]
    chaos._observer = cast(Any, SimpleNamespace(document=NEXT))
    assert chaos._sitting([(0, 1), (1, 3)]) == ["f", "e"]
