"""Answers that are read from storage, in threads: to peers and to clients."""

from contextlib import suppress

import trio
from msgspec import Raw
from msgspec.msgpack import Decoder

from node.consensus.round import Seat
from node.database import StorageClosed
from node.effects import Publish, ReplyBlocks, SendBlocks, SendBundles, SendCheckpoint, SendParts
from node.handing_over import read_checkpoint, read_parts
from node.protocol.chain import Chain
from node.protocol.codec import DecodeError, encode
from node.protocol.messages import CheckpointReply, Frame, PartsReply, StoredBundleDelivery, StoredChainReply, StoredFrame
from node.protocol.queries import GetBlocks
from node.replica.answering import sign_blocks
from node.storage import Storage
from node.stores import Stores
from node.talking import Talking

SERVE_BYTES = 1 << 20
"""Blocks or bundles in one answer, bytes, to a peer and to a client; more only if it is a single one."""

Answer = SendBlocks | SendBundles | SendCheckpoint | SendParts

_decode_parts = Decoder(tuple[Raw, Raw, Raw]).decode
"""An encoded ``CertifiedBlock``'s block, finality and effects, each still encoded."""


class Reading:
    """Reads the chains' databases. What is abandoned meanwhile is not answered."""

    def __init__(self, stores: Stores, talking: Talking) -> None:
        self._stores, self._talking = stores, talking
        self._replying = trio.CapacityLimiter(1)
        self._handing_over, self._handed_to = trio.CapacityLimiter(1), set[bytes]()

    async def answer(self, chain: Chain, wanted: Answer) -> None:
        """What a peer asked for in this chain."""
        with suppress(StorageClosed):
            storage = await trio.to_thread.run_sync(self._stores.find, chain)
            match wanted:
                case _ if storage is None:
                    return
                case SendBlocks(peer, first):
                    await self._send_blocks(chain, storage, peer, first)
                case SendBundles():
                    await self._send_bundles(chain, storage, wanted)
                case SendCheckpoint() | SendParts() if wanted.peer not in self._handed_to:
                    await self._hand_over(chain, storage, wanted)

    async def _send_blocks(self, chain: Chain, storage: Storage, peer: bytes, first: int) -> None:
        """Blocks are passed on as they are stored, without taking them apart, and without their effects."""
        stored = await trio.to_thread.run_sync(storage.blocks, first, SERVE_BYTES)
        if stored:
            parts = map(_decode_parts, stored)
            reply = StoredChainReply(tuple((block, finality) for block, finality, _ in parts))
            self._talking.pass_on(encode(StoredFrame(chain.epoch, chain.shard, reply)), peer)

    async def _send_bundles(self, chain: Chain, storage: Storage, wanted: SendBundles) -> None:
        """To the chain that they are for."""
        limit = 0 if wanted.is_alone else SERVE_BYTES
        for bundle in await trio.to_thread.run_sync(storage.bundles, wanted.destination, wanted.sequence, limit):
            delivery = StoredBundleDelivery(Raw(bundle))
            self._talking.pass_on(encode(StoredFrame(chain.epoch, wanted.destination, delivery)), wanted.peer)

    async def _hand_over(self, chain: Chain, storage: Storage, wanted: SendCheckpoint | SendParts) -> None:
        """One answer at a time, and to each peer: who asks for more than can be read meanwhile does without."""
        self._handed_to.add(wanted.peer)
        try:
            with suppress(DecodeError):  # another ledger took its place just now
                frame = await trio.to_thread.run_sync(_read_part, chain, storage, wanted, limiter=self._handing_over)
                self._talking.pass_on(frame, wanted.peer)
        finally:
            self._handed_to.discard(wanted.peer)

    async def reply(self, chain: Chain, wanted: ReplyBlocks, seat: Seat) -> Publish | None:
        """Final blocks for a client, signed by the chain's member: one reply at a time, for a block may have megabytes."""
        request = wanted.query.request
        assert isinstance(request, GetBlocks)

        def read_and_sign() -> Publish | None:
            storage = self._stores.find(chain)
            if storage is None:
                return None
            stored = storage.blocks(request.first, SERVE_BYTES, request.count)
            return sign_blocks(seat, wanted.query, stored, storage.oldest)

        with suppress(StorageClosed):
            return await trio.to_thread.run_sync(read_and_sign, limiter=self._replying)
        return None


def _read_part(chain: Chain, storage: Storage, wanted: SendCheckpoint | SendParts) -> bytes:
    """The encoded frame to be sent."""
    match wanted:
        case SendCheckpoint(_, height, certified_at, root):
            reply: CheckpointReply | PartsReply = CheckpointReply(read_checkpoint(storage, height, certified_at, root))
        case SendParts(_, height, parts):
            reply = PartsReply(height, read_parts(storage, height, parts))
    return encode(Frame(chain.epoch, chain.shard, reply))
