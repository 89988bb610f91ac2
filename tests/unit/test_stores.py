"""All that a node has on disk: a file for each chain, and what it remembers beside them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from node.database import StorageClosed, StorageDamaged, StorageError, set_aside
from node.effects import Abandon, AcceptDocument, Begin, Journal, Pledge, Retire
from node.protocol.chain import Chain
from node.protocol.change import Bulletin, Change
from node.protocol.succession import Succession
from node.storage import Storage
from node.stores import MAX_READ, Stores
from tests.chains import Network

NETWORK = Network(committees=1)
FIRST, OTHER, LATER = Chain(1, 0), Chain(1, 1), Chain(2, 0)
PLEDGES = Pledge(3, b"1" * 32, b"r" * 32), Pledge(1, b"2" * 32, b"", 2), Pledge(1, b"3" * 32, b"", 3)
VOTE = Journal(1, "notarize", b"vote")


def succession() -> Succession:
    final = NETWORK.shards[0].add()
    return Succession((Bulletin(1, final.block.header, final.finality, Change()),))


def stores(folder: Path) -> Stores:
    return Stores(folder, NETWORK.genesis.network)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Stores]:
    with closing(stores(tmp_path)) as found:
        yield found


def test_each_chain_has_a_file_of_its_own(opened: Stores, tmp_path: Path) -> None:
    opened.write(FIRST, [VOTE])
    opened.write(LATER, [Journal(2, "notarize", b"another")])
    opened.close()
    assert {path.name for path in tmp_path.glob("*.db")} == {"node.db", "chain-1-0.db", "chain-2-0.db"}
    with closing(stores(tmp_path)) as again:
        assert again.stored().chains == {FIRST, LATER}
        assert again.open(FIRST).journal() == [VOTE]
        assert [record.view for record in again.open(LATER).journal()] == [2]
        assert again.find(OTHER) is None
        assert again.chains == {FIRST, LATER}, "to look for one does not make it"


def test_a_chain_that_is_written_does_not_wait_while_another_is_opened(opened: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.write(FIRST, [VOTE])
    opened.write(OTHER, [VOTE])
    opened.remember([Retire(OTHER)])
    begun, go_on = Event(), Event()
    open_slowly = Storage.__init__

    def slow(self: Storage, path: Path, network: bytes) -> None:
        begun.set()
        assert go_on.wait(60)
        open_slowly(self, path, network)

    monkeypatch.setattr(Storage, "__init__", slow)
    reader, writer = Thread(target=opened.find, args=(OTHER,)), Thread(target=opened.write, args=(FIRST, [VOTE]))
    reader.start()
    assert begun.wait(60)
    writer.start()
    writer.join(30)
    is_stuck = writer.is_alive()
    go_on.set()
    for thread in (reader, writer):
        thread.join()
    assert not is_stuck


def test_pledges_are_remembered_by_epoch_until_it_begins(opened: Stores, tmp_path: Path) -> None:
    opened.remember([Pledge(2, b"0" * 32), *PLEDGES])
    assert opened.stored().pledges == PLEDGES
    opened.remember([AcceptDocument(NETWORK.signed)])
    assert opened.stored().pledges == PLEDGES
    opened.remember([AcceptDocument(NETWORK.opening)])
    assert opened.stored().pledges == PLEDGES[1:], "from now on it is where the votes are, or nowhere"
    begun = succession()
    opened.remember([Begin(begun)])
    opened.close()
    with closing(stores(tmp_path)) as again:
        stored = again.stored()
        assert stored.pledges == PLEDGES[2:]
        assert stored.begun == (begun,)
        assert stored.accepted == NETWORK.opening


def test_who_lost_the_chain_in_which_it_voted_has_no_secret_for_it(opened: Stores, tmp_path: Path) -> None:
    opened.remember([PLEDGES[0]])
    opened.write(FIRST, [PLEDGES[0], VOTE])
    opened.remember([AcceptDocument(NETWORK.opening)])
    assert opened.open(FIRST).pledge() == PLEDGES[0]
    opened.close()
    set_aside(tmp_path / "chain-1-0.db")
    with closing(stores(tmp_path)) as again:
        assert again.stored().pledges == ()
        assert again.open(FIRST).pledge() is None


def test_what_is_abandoned_is_gone_and_who_reads_it_is_told(opened: Stores, tmp_path: Path) -> None:
    opened.write(FIRST, [VOTE])
    opened.write(OTHER, [VOTE])
    reading = opened.open(FIRST)
    opened.remember([Abandon(FIRST), Abandon(LATER)])
    with pytest.raises(StorageClosed):
        reading.journal()
    assert opened.chains == {OTHER}
    assert not list(tmp_path.glob("chain-1-0*"))
    assert opened.open(FIRST).journal() == [], "a new one"


def test_of_chains_that_are_over_few_files_are_open_however_many_there_are(opened: Stores, tmp_path: Path) -> None:
    chains = [Chain(epoch, 0) for epoch in range(1, 3 * MAX_READ)]
    for chain in chains:
        opened.write(chain, [VOTE])
    live, over = chains[-1], chains[:-1]
    opened.remember([Retire(chain) for chain in over])
    writing = opened.open(live)
    for chain in (*over, *over[-2:], *over):
        found = opened.find(chain)
        assert found is not None
        assert found.journal() == [VOTE]
        assert len(list(tmp_path.glob("chain-*-wal"))) <= MAX_READ + 1
    assert opened.find(live) is opened.open(live) is writing, "what is written stays open"
    assert writing.journal() == [VOTE]


def test_a_chain_that_was_only_read_can_be_written_and_dropped(opened: Stores, tmp_path: Path) -> None:
    for chain in (FIRST, OTHER):
        opened.write(chain, [VOTE])
        opened.remember([Retire(chain)])
        reading = opened.find(chain)
    assert reading is not None
    opened.write(FIRST, [Journal(2, "notarize", b"another")])
    assert opened.find(FIRST) is opened.open(FIRST)
    opened.drop(OTHER)
    assert opened.chains == {FIRST}
    with pytest.raises(StorageClosed):
        reading.journal()


def test_a_second_process_is_kept_out_of_the_folder(opened: Stores, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="in use by another process"):
        stores(tmp_path)


def test_a_folder_of_another_network_is_refused(opened: Stores, tmp_path: Path) -> None:
    opened.close()
    with pytest.raises(StorageError, match="belongs to network"):
        Stores(tmp_path, bytes(32))


@pytest.mark.parametrize("name", ["node.db", "chain-1-0.db"])
def test_a_damaged_file_is_named_and_the_others_are_kept(opened: Stores, tmp_path: Path, name: str) -> None:
    opened.remember([PLEDGES[1]])
    opened.write(FIRST, [VOTE])
    opened.write(OTHER, [VOTE])
    opened.close()
    (tmp_path / name).write_bytes(b"junk" * 4096)
    with pytest.raises(StorageDamaged) as damaged, closing(stores(tmp_path)) as found:
        found.open(FIRST)
    assert damaged.value.path == tmp_path / name
    set_aside(damaged.value.path)
    with closing(stores(tmp_path)) as again:
        assert again.stored().pledges == (() if name == "node.db" else PLEDGES[1:2])
        assert again.open(FIRST).journal() == ([VOTE] if name == "node.db" else [])
        assert again.open(OTHER).journal() == [VOTE]


def test_a_database_that_had_a_chain_and_pledges_is_of_another_version(opened: Stores, tmp_path: Path) -> None:
    opened.open(FIRST)
    opened.close()
    (tmp_path / "chain-1-0.db").rename(tmp_path / "node.db")
    with pytest.raises(StorageError, match="not written by this version"):
        stores(tmp_path)
