"""A network made up for the dashboard: real keys, a real epoch document, really certified blocks - and no processes."""

from collections.abc import Sequence

from node.protocol import keys, merkle
from node.protocol.block import AssetTotal, Block, Changes, Effects, Header, Outcome, PeerTotal, Receipt, Totals, payload_root
from node.protocol.certificate import CertifiedBlock, Finality, VoteKind, make_certificate, sign_vote
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH, KeyPair
from node.protocol.epoch import Announcement, EpochDocument, PhaseNotice, Registration, SignedDocument, first_document
from node.protocol.genesis import Asset, Genesis, Parameters, Phase
from node.protocol.puzzle import identity_prefix, search
from node.protocol.reports import Notable, Report
from tests.figures import GATEWAY, NODE, changed

TIME = 1_700_000_000_000


class Network:
    """``committees`` x ``size`` nodes named node-1, node-2, ..."""

    def __init__(self, committees: int = 2, size: int = 4, time: int = TIME) -> None:
        self.coordinator = keys.generate()
        issuer = keys.generate().public.hex()
        self.genesis = Genesis(
            name="testnet",
            time=time,
            coordinator=self.coordinator.public.hex(),
            assets=(Asset(code="USD", decimals=2, issuer=issuer), Asset(code="VND", decimals=0, issuer=issuer)),
            parameters=Parameters(committees=committees, committee_size=size, puzzle_difficulty_bits=4),
        )
        pairs = [keys.generate() for _ in range(committees * size)]
        self.by_public = {pair.public: pair for pair in pairs}
        self.document: EpochDocument = first_document(
            self.genesis, [self._register(f"node-{i + 1}", pair) for i, pair in enumerate(pairs)]
        )

    def _register(self, name: str, pair: KeyPair) -> Registration:
        prefix = identity_prefix(self.genesis.network, 1, self.genesis.hash, pair.public)
        nonce = search(prefix, self.genesis.parameters.puzzle_difficulty_bits, 0, 1 << 20)
        assert nonce is not None
        return Registration(self.genesis.network, 1, pair.public, name, ("/ip4/127.0.0.1/tcp/8100",), nonce).signed(pair)

    def announcement(self, phase: Phase = Phase.MINING, since: int = TIME, assigned: bool = True) -> bytes:
        notice = PhaseNotice(self.genesis.network, 1, phase, since, len(self.by_public)).signed(self.coordinator)
        signature = self.coordinator.sign(self.document.hash)
        return encode(Announcement(notice, SignedDocument(self.document, signature) if assigned else None))

    def block(
        self,
        shard: int,
        height: int,
        receipts: Sequence[tuple[bytes, Outcome]] = (),
        totals: Totals | None = None,
        time: int | None = None,
        payload: Sequence[bytes] = (),
    ) -> CertifiedBlock:
        """A block of ``shard``, certified by a quorum of its committee. It extends nothing: the dashboard keeps no chain."""
        electorate = self.document.electorates[shard]
        totals = totals or Totals((), 0)
        recorded = tuple(Receipt(id, outcome) for id, outcome in receipts)
        effects = Effects(recorded, Changes((), ZERO_HASH), totals)
        header = Header(
            network=self.genesis.network,
            shard=shard,
            epoch=1,
            view=height + 3,
            height=height,
            parent=ZERO_HASH,
            time=self.genesis.time + height * 1000 if time is None else time,
            proposer=height % len(electorate.keys),
            payload_root=payload_root((), payload),
            receipts_root=merkle.root([encode(receipt) for receipt in recorded]),
            outbox_root=ZERO_HASH,
            changes_hash=effects.changes.hash(),
            totals_hash=totals.hash(),
            state_root=ZERO_HASH,
            nonce=bytes(8),
        )
        votes = [
            sign_vote(self.by_public[key], i, electorate, VoteKind.FINALIZE, header.view, header.hash)
            for i, key in enumerate(electorate.keys)
        ]
        return CertifiedBlock(Block(header, (), tuple(payload)), Finality((), make_certificate(votes, electorate)), effects)


def totals(available: int, minted: int, moved: Sequence[PeerTotal] = (), held: int = 0, pending: int = 0) -> Totals:
    return Totals((AssetTotal("USD", available, held, minted, 0, tuple(moved)),), pending)


def node(name: str, time: int, **changes: object) -> bytes:
    """A node's report of its figures, which differ from the example's in ``changes``."""
    return encode(Report(name, time, changed(NODE, **changes)))


def gateway(name: str, time: int, **changes: object) -> bytes:
    return encode(Report(name, time, changed(GATEWAY, **changes)))


def notable(name: str, time: int, text: str) -> bytes:
    return encode(Report(name, time, Notable(text)))
