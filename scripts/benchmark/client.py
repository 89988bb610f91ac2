"""The load's client: hands batches of signed transactions to the broker and reads what became of them in proven blocks."""

import time
from collections.abc import Iterable, Sequence
from functools import partial

from node.client.blocks import prove_block, read_block
from node.client.follower import Follower, Progress
from node.client.questions import Question
from node.protocol.block import Outcome, Receipt
from node.protocol.codec import encode
from node.protocol.genesis import Phase
from node.protocol.limits import MAX_BROKER_BATCH_BYTES, MAX_BROKER_BODY_BYTES
from node.protocol.queries import BlockList
from node.protocol.topics import TransactionBatch, blocks_topic, transactions_topic
from scripts.devnet.client import ANSWER_SECONDS, Client, ClientError


class LoadClient:
    """Waits on construction until every shard makes blocks, and follows it from the first it hears of on: what is sent then
    is decided in a later one, whoever does not hear it, and is to be sent again.

    Raises:
        ClientError: no epoch in its mining phase, or no block of a shard, within ``seconds``.
    """

    def __init__(self, client: Client, seconds: float = 60.0) -> None:
        self._client, self.genesis = client, client.genesis
        if not client.wait(self._is_mining, seconds):
            raise ClientError(f"no epoch reached its mining phase within {seconds:.0f} s")
        self.document = client.document()
        self._followers = {s: Follower(e, from_now=True) for s, e in self.document.electorates.items()}
        self._asked: dict[int, tuple[Question, float]] = {}
        self._receipts: list[Receipt] = []
        for shard in self._followers:
            client.subscribe(
                blocks_topic(self.genesis.network, self.document.electorates[shard].chain),
                MAX_BROKER_BODY_BYTES,
                partial(self._published, shard),
            )
        if not client.wait(lambda: all(follower.height for follower in self._followers.values()), seconds):
            silent = [shard for shard, follower in self._followers.items() if not follower.height]
            raise ClientError(f"no block of shard {silent[0]} was published within {seconds:.0f} s")

    @property
    def height(self) -> int:
        """The heights of all shards, added up."""
        return sum(follower.height for follower in self._followers.values())

    def send(self, shard: int, encoded: Sequence[bytes]) -> None:
        """Publish encoded transactions to their home shard, in batches of 64 KB. Raises ClientError."""
        topic = transactions_topic(self.genesis.network, self.document.electorates[shard].chain)
        for batch in batches(encoded):
            self._client.publish(topic, encode(TransactionBatch(tuple(batch))))

    def receipts(self, timeout: float) -> Sequence[Receipt]:
        """Final receipts in the next blocks, or nothing when none come within ``timeout`` seconds."""
        self._client.poll(timeout)
        now = time.monotonic()
        for shard, follower in self._followers.items():
            self._take_answer(shard, now)
            if shard not in self._asked and (asked := follower.ask(now)) is not None:
                question = self._client.ask(self.document.electorates[shard], asked.request, asked.member)
                self._asked[shard] = (question, now + ANSWER_SECONDS)
        found, self._receipts = self._receipts, []
        return found

    def _is_mining(self) -> bool:
        epochs = self._client.epochs
        return epochs.document is not None and epochs.notice is not None and epochs.notice.phase is Phase.MINING

    def _published(self, shard: int, body: bytes) -> None:
        block = read_block(body, self.document.electorates[shard])
        self._keep(self._followers[shard].published([block], time.monotonic()))

    def _take_answer(self, shard: int, now: float) -> None:
        if shard not in self._asked:
            return
        question, deadline = self._asked[shard]
        if question.is_done or now > deadline:
            del self._asked[shard]
            self._client.close(question)
            answer, electorate = question.answer, question.electorate
            blocks = [prove_block(block, electorate) for block in answer.blocks] if isinstance(answer, BlockList) else None
            self._keep(self._followers[shard].answered(blocks, now))

    def _keep(self, progress: Progress) -> None:
        for block in progress.blocks:
            self._receipts += [r for r in block.certified.effects.receipts if r.outcome is not Outcome.PREPARED]


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
