"""Chains of several epochs, as a client follows them."""

from node.chronicle import NewBulletin, Refused
from node.client.blocks import ProvenBlock, prove_block
from node.client.epochs import Epochs, NewDocument
from node.client.follower import Follower
from node.protocol.chain import Chain
from node.protocol.codec import decode, encode
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.succession import Succession
from tests.chains import Network, Shard
from tests.successions import told_of

NETWORK = Network(standby=4, epoch_pause=100, reveal_time=1000)
"""Two shards; then three, as the first is split; then two, as its halves merge."""
NETWORK.change()
NETWORK.change(list(NETWORK.nodes.values())[:8])
for _shard in NETWORK.shards:
    _shard.add()


def informed() -> Epochs:
    epochs = Epochs(NETWORK.genesis)
    epochs.announce(encode(NETWORK.announcement()))
    for succession in NETWORK.successions:
        epochs.hear(told_of(succession))
    return epochs


def proven(shard: Shard) -> list[ProvenBlock]:
    found = [prove_block(block, shard.electorate) for block in shard.chain]
    assert None not in found
    return [block for block in found if block is not None]


def test_successions_bring_the_later_documents_one_after_the_other() -> None:
    epochs = Epochs(NETWORK.genesis)
    assert epochs.hear(told_of(NETWORK.successions[0])) == [], "nothing is known before the first"
    epochs.announce(encode(NETWORK.announcement()))
    assert epochs.hear(told_of(NETWORK.successions[1])) == [], "that it is late it knows now"
    assert epochs.asks(0)
    for document, succession in zip(NETWORK.documents[1:], NETWORK.successions, strict=True):
        assert epochs.hear(told_of(succession)) == [NewDocument(document)]
    assert epochs.document == NETWORK.document
    assert epochs.electorates.keys() == NETWORK.chains.keys()
    assert epochs.current == NETWORK.document.electorates


def test_a_forged_succession_is_refused_and_changes_nothing() -> None:
    other = Network(standby=4, epoch_pause=100, reveal_time=1000)
    other.change(list(other.nodes.values())[:8])
    first, second = NETWORK.successions[0].closings[:2]
    epochs = Epochs(NETWORK.genesis)
    epochs.announce(encode(NETWORK.announcement()))
    for closings in ((first, other.successions[0].closings[1]), (first,), (first, first), (second, first)):
        (news,) = epochs.hear(told_of(Succession(closings)))
        assert isinstance(news, Refused)
        assert epochs.documents == NETWORK.documents[:1]
    assert epochs.hear(told_of(NETWORK.successions[0])) == [NewDocument(NETWORK.documents[1])]


def test_closing_bulletins_of_all_shards_are_as_good_as_the_succession() -> None:
    epochs = Epochs(NETWORK.genesis)
    epochs.announce(encode(NETWORK.announcement()))
    first, second = NETWORK.successions[0].closings
    assert epochs.hear(encode(second)) == [NewBulletin(second)]
    assert NewDocument(NETWORK.documents[1]) in epochs.hear(encode(first))


def test_all_is_restored_from_what_is_stored_of_each_epoch() -> None:
    epochs, again = informed(), Epochs(NETWORK.genesis)
    for number, document in enumerate(NETWORK.documents, 1):
        assert again.restore(epochs.stored(number)) == [NewDocument(document)]
    assert isinstance(again.restore(epochs.stored(2))[0], Refused)
    assert decode(Succession, again.stored(3), MAX_FRAME_BYTES) == NETWORK.successions[1]


def test_where_a_chain_comes_from_and_when_and_where_it_ends() -> None:
    epochs = informed()
    assert [epochs.origins(Chain(2, shard)) for shard in (0, 1, 2)] == [[Chain(1, 0)], [Chain(1, 1)], [Chain(1, 0)]]
    assert epochs.origins(Chain(3, 0)) == [Chain(2, 0), Chain(2, 2)]
    assert epochs.origins(Chain(1, 0)) == []
    for chain, shard in NETWORK.chains.items():
        assert epochs.end(chain) == (None if chain.epoch == 3 else shard.head)
        assert epochs.opened(chain) == (0 if chain.epoch == 1 else shard.genesis.time)


def test_a_chain_is_followed_to_its_closing_block_and_no_further() -> None:
    shard = NETWORK.chains[Chain(1, 0)]
    blocks, end = proven(shard), shard.head
    extra = prove_block(shard.forge(height=end.height + 1, parent=end.hash), shard.electorate)
    follower = Follower(shard.electorate)
    assert len(follower.published(blocks[:-1], 0).blocks) == len(blocks) - 1
    follower.finish(end)
    assert not follower.is_complete
    assert follower.published([blocks[-1], extra], 1).blocks == (blocks[-1],)
    assert (follower.is_complete, follower.caught_up, follower.forks) == (True, True, 0)
    assert follower.ask(1_000) is None
    late = Follower(shard.electorate, end.height, end.hash)
    late.finish(end)
    assert (late.is_complete, late.caught_up, late.ask(1_000)) == (True, True, None)


def test_another_block_in_the_closing_blocks_place_is_told_and_not_taken() -> None:
    shard = NETWORK.chains[Chain(1, 1)]
    other = prove_block(shard.forge(shard.chain[-1], time=shard.head.time + 1), shard.electorate)
    follower = Follower(shard.electorate)
    follower.finish(shard.head)
    progress = follower.published([*proven(shard)[:-1], other], 0)
    assert (follower.height, follower.forks, follower.is_complete) == (shard.head.height - 1, 1, False)
    assert "a second certified chain" in progress.notables[0]
    assert follower.published([proven(shard)[-1]], 1).blocks[0].header == shard.head


def test_a_chain_that_follows_on_others_begins_at_height_1() -> None:
    shard = NETWORK.chains[Chain(3, 0)]
    assert shard.chain[0].block.header.parent == shard.genesis.hash
    assert len(Follower(shard.electorate).published(proven(shard), 0).blocks) == len(shard.chain)
