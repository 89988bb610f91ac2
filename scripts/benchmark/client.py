"""The load's client: hands batches of signed transactions to the broker and reads what became of them in proven blocks."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from node.client.blocks import prove_block, read_block
from node.client.follower import Follower, Progress
from node.client.questions import Question
from node.protocol.block import Outcome, Receipt
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.genesis import Phase, read_genesis
from node.protocol.limits import MAX_BROKER_BATCH_BYTES, MAX_BROKER_BODY_BYTES
from node.protocol.queries import BlockList
from node.protocol.topics import TransactionBatch, blocks_topic, transactions_topic
from scripts.benchmark.network import Network
from scripts.devnet.client import Client, ClientError


class LoadClient:
    """Waits on construction until every shard makes blocks, and follows it from the first it hears of on: what is sent then
    is decided in a later one, whoever does not hear it, and is to be sent again. Chains of later epochs are followed from their
    beginning.

    Raises:
        ClientError: no epoch in its mining phase, or no block of a shard, within ``seconds``.
    """

    def __init__(self, client: Client, seconds: float = 60.0) -> None:
        self._client, self.genesis = client, client.genesis
        if not client.wait(self._is_mining, seconds):
            raise ClientError(f"no epoch reached its mining phase within {seconds:.0f} s")
        self._followers: dict[Chain, Follower] = {}
        self._asked: dict[Chain, tuple[Question, float]] = {}
        self._receipts: list[tuple[Chain, Receipt]] = []
        self.document = client.document()
        self._follow(from_now=True)
        if not client.wait(lambda: all(follower.height for follower in self._followers.values()), seconds):
            silent = [chain.shard for chain, follower in self._followers.items() if not follower.height]
            raise ClientError(f"no block of shard {silent[0]} was published within {seconds:.0f} s")

    def _follow(self, *, from_now: bool) -> None:
        """The chains of this epoch; those of earlier ones to their closing blocks."""
        for chain, follower in self._followers.items():
            if follower.end is None and (end := self._client.epochs.end(chain)) is not None:
                follower.finish(end)
        for electorate in self.document.electorates.values():
            chain = electorate.chain
            self._followers[chain] = Follower(electorate, from_now=from_now)
            topic = blocks_topic(self.genesis.network, chain)
            self._client.subscribe(topic, MAX_BROKER_BODY_BYTES, partial(self._published, chain))

    @property
    def height(self) -> int:
        """The heights of all chains followed, added up."""
        return sum(follower.height for follower in self._followers.values())

    def home_of(self, payer: bytes) -> Chain:
        """The chain that a payment from this address is sent to now."""
        return Chain(self.document.number, self.document.shards.shard_of(payer))

    def touched(self, epoch: int, addresses: Iterable[bytes]) -> int:
        """How many shards keep these addresses in an epoch."""
        return len(set(map(self._client.epochs.documents[epoch - 1].shards.shard_of, addresses)))

    def send(self, home: Chain, encoded: Sequence[bytes]) -> None:
        """Publish encoded transactions to their home shard, in batches of 64 KB. Raises ClientError."""
        topic = transactions_topic(self.genesis.network, home)
        for batch in batches(encoded):
            self._client.publish(topic, encode(TransactionBatch(tuple(batch))))

    def receipts(self, timeout: float) -> Sequence[tuple[Chain, Receipt]]:
        """Final receipts in the next blocks, or nothing when none come within ``timeout`` seconds."""
        self._client.poll(timeout)
        if (document := self._client.epochs.document) is not None and document.number > self.document.number:
            self.document = document
            self._follow(from_now=False)
        now = time.monotonic()
        for chain, follower in self._followers.items():
            self._take_answer(chain, now)
            if chain not in self._asked and (asked := follower.ask(now)) is not None:
                question = self._client.ask(self._client.epochs.electorates[chain], asked.request, asked.member)
                self._asked[chain] = (question, now + asked.patience)
        found, self._receipts = self._receipts, []
        return found

    def _is_mining(self) -> bool:
        epochs = self._client.epochs
        return epochs.document is not None and epochs.notice is not None and epochs.notice.phase is Phase.MINING

    def _published(self, chain: Chain, body: bytes) -> None:
        block = read_block(body, self._client.epochs.electorates[chain])
        self._keep(chain, self._followers[chain].published([block], time.monotonic()))

    def _take_answer(self, chain: Chain, now: float) -> None:
        if chain not in self._asked:
            return
        question, deadline = self._asked[chain]
        if question.is_done or now > deadline:
            del self._asked[chain]
            self._client.close(question)
            answer, electorate = question.answer, question.electorate
            blocks = [prove_block(block, electorate) for block in answer.blocks] if isinstance(answer, BlockList) else None
            self._keep(chain, self._followers[chain].answered(blocks, now))

    def _keep(self, chain: Chain, progress: Progress) -> None:
        for block in progress.blocks:
            self._receipts += [(chain, r) for r in block.certified.effects.receipts if r.outcome is not Outcome.PREPARED]


@contextlib.contextmanager
def load_client(network: Network) -> Iterator[LoadClient]:
    """A client of this network. Raises ClientError."""
    devnet = network.devnet
    with Client(devnet.broker_url, read_genesis(devnet.folder.genesis)) as client:
        yield LoadClient(client)


def batches(encoded: Sequence[bytes]) -> Iterable[list[bytes]]:
    """Cut into batches of at most 64 KB."""
    batch: list[bytes] = []
    size = 0
    for one in encoded:
        if batch and size + len(one) > MAX_BROKER_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one)
    if batch:
        yield batch
