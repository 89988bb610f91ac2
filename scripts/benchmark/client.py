"""A client without a gateway: hands batches of signed transactions to the broker and reads what became of them in blocks."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from node.protocol.block import Outcome, Receipt
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import decode, encode
from node.protocol.epoch import Announcement, EpochDocument
from node.protocol.genesis import Genesis, Phase
from node.protocol.limits import MAX_BROKER_BATCH_BYTES, MAX_BROKER_BODY_BYTES
from node.protocol.topics import TransactionBatch, blocks_topic, epoch_topic, transactions_topic


class BenchError(Exception):
    """The measurement cannot go on; the text says why."""


class Client:
    """One connection to publish, one to listen. Waits for the mining phase on construction.

    Raises:
        BenchError: no epoch in its mining phase within ``seconds``.
    """

    def __init__(self, url: str, genesis: Genesis, seconds: float = 60.0) -> None:
        self._redis = redis.Redis.from_url(url)
        self.genesis = genesis
        self._pubsub: Any = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self.document = self._wait_for_document(seconds)
        self._channels = {blocks_topic(genesis.network, shard).encode() for shard in self.document.electorates}
        self._pubsub.subscribe(*self._channels)
        while self._pubsub.get_message(timeout=0.2) is not None:
            pass

    def _wait_for_document(self, seconds: float) -> EpochDocument:
        self._pubsub.subscribe(epoch_topic(self.genesis.network))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = self._pubsub.get_message(timeout=1.0)
            except redis.ConnectionError:
                time.sleep(0.2)
                continue
            if message is not None:
                announcement = decode(Announcement, message["data"], MAX_BROKER_BODY_BYTES)
                if announcement.notice.phase is Phase.MINING and announcement.document is not None:
                    announcement.document.check(self.genesis)
                    self._pubsub.unsubscribe()
                    return announcement.document.document
        raise BenchError(f"no epoch reached its mining phase within {seconds:.0f} s")

    def send(self, shard: int, encoded: Sequence[bytes]) -> None:
        """Publish encoded transactions to their home shard, in batches of 64 KB."""
        channel = transactions_topic(self.genesis.network, shard)
        for batch in batches(encoded):
            self._redis.publish(channel, encode(TransactionBatch(tuple(batch))))

    def receipts(self, timeout: float) -> Sequence[Receipt]:
        """Final receipts in the next block, or nothing when none comes within ``timeout`` seconds."""
        message = self._pubsub.get_message(timeout=timeout)
        if message is None or message["channel"] not in self._channels:
            return ()
        certified = decode(CertifiedBlock, message["data"], MAX_BROKER_BODY_BYTES)
        return [receipt for receipt in certified.effects.receipts if receipt.outcome is not Outcome.PREPARED]


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
