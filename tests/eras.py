"""All shards' ledgers over several epochs, without consensus: what goes on in an epoch, its end, and how the next one begins."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from node.ledger.execution import Execution, execute, genesis_header
from node.ledger.opening import Origin, included, open_state, opening_header
from node.ledger.rules import FIGURES_PAUSE, Rules
from node.ledger.state import State
from node.ledger.totals import recompute_totals
from node.protocol.address import address_of
from node.protocol.assignment import cut_of
from node.protocol.block import Balance, Header, Receipt
from node.protocol.certificate import Certificate, Finality, VoteKind
from node.protocol.change import Bulletin, Change, Stage
from node.protocol.channel import Bundle
from node.protocol.codec import encode
from node.protocol.credits import Credits, next_credits
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Asset, Genesis, Parameters
from node.protocol.transaction import Action, Leg, Order, Transaction
from tests.chains import key

START, NETWORK = 1_000_000, b"test network id."
ISSUERS = {"USD": key("issuer USD"), "EUR": key("issuer 1")}
PEOPLE = [key(f"person {number}") for number in range(12)]
KEYS = {address_of(pair.public): pair for pair in (*ISSUERS.values(), *PEOPLE)}
ACCOUNTS = [address_of(pair.public) for pair in PEOPLE]
ISSUED_BY = {asset: address_of(pair.public) for asset, pair in ISSUERS.items()}
WINDOW = 10_000
GENESIS = Genesis(
    name="test",
    time=START,
    coordinator=PEOPLE[0].public.hex(),
    assets=tuple(Asset(asset, 2, pair.public.hex()) for asset, pair in ISSUERS.items()),
    parameters=Parameters(
        heartbeat=500, view_timeout=500, validity_window=WINDOW, commit_timeout=1_000, epoch_time=1 << 50, checkpoint_interval=30
    ),
)


class Era:
    """One epoch.

    Attributes, by shard: rules, states; openings: the headers at height 0; receipts: the last of each transaction.
    """

    def __init__(
        self,
        document: EpochDocument,
        before: "Era | None" = None,
        closings: Iterable[Bulletin] = (),
        credit: Credits | None = None,
    ) -> None:
        """``before``, ``closings``, ``credit``: the epoch before, and what it left."""
        self.document, self.credit = document, credit or {}
        self.now: int = before.now if before is not None else START
        self._salt: int = before._salt if before is not None else 0
        self.states: dict[int, State] = {}
        self.openings: dict[int, Header] = {}
        headers = {bulletin.header.shard: bulletin.header for bulletin in closings}
        for shard in document.shards.shards:
            rules = Rules(GENESIS, NETWORK, shard, document.shards, document, self.now)
            if before is None:
                self.states[shard] = State.genesis(rules)
                self.openings[shard] = genesis_header(GENESIS, shard, self.states[shard])
                continue
            origins = [Origin(before.states[origin], headers[origin]) for origin in document.origins_of(shard)]
            self.states[shard] = open_state(rules, document, origins, self.credit)
            closed = [origin.closing for origin in origins]
            self.openings[shard] = opening_header(document, shard, self.states[shard], closed)
        self.rules = {shard: state.rules for shard, state in self.states.items()}
        self.channels: defaultdict[tuple[int, int], deque[Bundle]] = defaultdict(deque)
        self.receipts: dict[tuple[int, bytes], Receipt] = {}

    def shard_of(self, address: bytes) -> int:
        return self.document.shards.shard_of(address)

    def pay(self, payer: bytes, payee: bytes, amount: int, asset: str = "USD", action: Action = Action.PAY) -> Transaction:
        self._salt += 1
        legs = (Leg(payer, payee, asset, amount, action),)
        order = Order(NETWORK, legs, "", self.now + WINDOW // 2, self._salt.to_bytes(8, "big"))
        return order.sign([KEYS[one] for one in order.payers])

    def block(self, shard: int, *transactions: Transaction, bundles: Iterable[Bundle] = ()) -> Execution:
        """The next one: with all that is on its way, or ``bundles`` that a captured shard made up."""
        arriving = list(bundles)
        for (_, destination), queue in sorted(self.channels.items()):
            while destination == shard and queue:
                arriving.append(queue.popleft())
        state, pairs = self.states[shard], [(transaction.id, transaction) for transaction in transactions]
        valid = Transaction.has_valid_signatures
        execution = execute(state, self.rules[shard], state.height + 1, self.now, arriving, pairs, valid)
        state.commit(execution.overlay)
        for bundle in execution.outbox:
            self.channels[shard, bundle.destination].append(bundle)
        self.receipts |= {(shard, receipt.transaction_id): receipt for receipt in execution.effects.receipts}
        assert recompute_totals(state) == state.totals() == execution.effects.totals
        return execution

    def do(self, *transactions: Transaction) -> None:
        """Each in a block of its home, and all that follows."""
        for transaction in transactions:
            self.block(self.shard_of(transaction.order.legs[0].payer), transaction)
        self.settle()

    def settle(self) -> None:
        while any(self.channels.values()) or any(any(state.uncovered.values()) for state in self.states.values()):
            if not any(self.channels.values()):
                self.now += FIGURES_PAUSE
            for shard in self.states:
                self.block(shard)

    def balance(self, address: bytes, asset: str = "USD") -> Balance:
        return dict(self.states[self.shard_of(address)].balances_of(address)).get(asset, Balance())

    def balances(self) -> dict[tuple[bytes, str], Balance]:
        found = {(address, asset): self.balance(address, asset) for address in ACCOUNTS for asset in ISSUERS}
        return {key: balance for key, balance in found.items() if balance != Balance()}

    def available(self, shard: int, asset: str = "USD") -> int:
        return sum(total.available for total in self.states[shard].totals().assets if total.asset == asset)

    def closings(self, following: EpochDocument, **forged: Change) -> list[Bulletin]:
        """As of now. Nobody has signed them. ``forged``: by "s" + shard."""
        return [self._closing(shard, following, forged.get(f"s{shard}")) for shard in self.states]

    def _closing(self, shard: int, following: EpochDocument, forged: Change | None) -> Bulletin:
        state, cut = self.states[shard], cut_of(self.document, following, shard)
        upper: defaultdict[str, int] = defaultdict(int)
        for key_, balance in state.balances.items():
            if cut and key_ >= cut:
                upper[key_[20:].decode()] += balance.available
        change = forged or Change(stage=Stage.CLOSED, upper=tuple(sorted(upper.items())), totals=state.totals())
        place = {"height": state.height, "time": state.time, "state_root": state.state_root, "change_hash": change.hash}
        header = replace(self.openings[shard], document=self.document.hash, totals_hash=state.totals().hash(), **place)
        unsigned = Finality((), Certificate(VoteKind.FINALIZE, 0, header.hash, (), ()))
        return Bulletin(self.document.number, header, unsigned, change)

    def next(self, following: EpochDocument, **forged: Change) -> "Era":
        """The epoch that begins when this one is closed."""
        closings = self.closings(following, **forged)
        return Era(following, self, closings, next_credits(self.credit, self.document, following, closings, ISSUED_BY))

    def restored(self, shard: int) -> State:
        """A chain at height 0, from what its disk has."""
        state, header = self.states[shard], self.openings[shard]
        rows = [(key_, encode(value)) for key_, value in state.rows()]
        ids = {piece.key: piece.ids for piece in included([state], state.rules, state.time)}
        return State.restore(state.rules, header, state.next_checkpoint, rows, lambda key_, count: ids[key_][: 32 * count])


def succession(document: EpochDocument, ranges: Mapping[int, tuple[bytes, tuple[int, ...]]]) -> EpochDocument:
    """A document after ``document``: by shard the first address and the origins. Its committees are those of its origins."""
    committees = {committee.shard: committee for committee in document.committees}
    by_shard = sorted(ranges.items())
    return replace(
        document,
        number=document.number + 1,
        previous=document.hash,
        committees=tuple(replace(committees[origins[0]], shard=shard, first=first) for shard, (first, origins) in by_shard),
        origins=tuple(origins for _, (_, origins) in by_shard),
        lineage=document.network_id,
    )
