"""What must hold after every event, whatever fails and whoever lies (up to f members of a committee)."""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING

from msgspec import Struct, to_builtins

from node.effects import Broadcast, Commit, Effect, Journal, Persist, Row, Send
from node.events import Recovered
from node.ledger.admission import admit
from node.ledger.totals import recompute_totals
from node.protocol.block import Block, Header, Outcome
from node.protocol.channel import Bundle
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.epoch import Opening, Readiness, Reveal, SignedDocument, ToCoordinator
from node.protocol.limits import MAX_FRAME_BYTES
from node.protocol.messages import BundleDelivery, Frame, PeerMessage, Proposal
from node.protocol.transaction import decode_transaction
from node.replica import inbox
from node.replica.delivering import first_hands
from node.replica.replica import Replica
from tests.simulation.oracle import Oracle
from tests.simulation.readers import Readers
from tests.simulation.violation import ViolationError, violated
from tests.simulation.votes import Votes

if TYPE_CHECKING:
    from tests.simulation.clients import Gateway
    from tests.simulation.host import Host
    from tests.simulation.world import World

_FULL_CHECK = 50
_MEMORY_CHECK = 4
"""Every so many commits."""
_MAX_SENT = 40
"""Messages at once, for each member of a committee; 34 were the most in 600 runs, of who passed bundles on after a slow write."""
_MAX_VIEWS = 4
"""Rounds of all leaders until a first block is final; 2 were the most in 40 runs."""
_MAX_KEPT = 1 << 18
"""Bytes that a member keeps of what others send it; 52 KB were the most in 40 runs."""


_KEEPING = 10
"""Milliseconds from the arrival of a bundle until a member has it, with nothing in the way."""
_SPREADING = 500
"""Milliseconds from one member of a committee to the others, with nothing in the way but a write that began on a slow disk."""
_PLACE, _DELIVERY = 3, b"\x92\x09"
"""Where in a frame of epoch 1 its message begins, and how one with a bundle does."""
_MAX_CATCH_UP = 2_000
"""Milliseconds until who comes back when all faults stop has what others had then."""


class _Record(Struct):
    """What one honest node has shown so far, over all its lives."""

    votes: Votes
    logged: set[tuple[int, str]] = set()
    cursors: dict[int, int] = {}
    height: int = 0
    commits: int = 0
    document: bytes = b""
    proposed: bytes = b""
    waited: set[bytes] = set()
    """Of what was in its mempool at its last proposal, the first of each payer."""


class Monitor:
    """Watches disks, wires and chains."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._records: dict[int, _Record] = {}
        self._ready: set[int] = set()
        """Nodes that said they are."""
        self._rolls: dict[int, bytes] = {}
        """Hash of the roll each node told its secret to."""
        self.chains: dict[int, list[bytes]] = {}
        """Hashes of each shard's final blocks, as the first honest node stored them."""
        self.oracle: Oracle
        self.dropped_for: set[str] = set()
        self._is_calm = False
        """Faults have stopped."""
        self.readers: Readers | None = None
        """Where a captured shard certifies nonsense."""
        self._behind: dict[int, int] = {}
        """Honest nodes that came back when all faults stopped and are behind, and the height that their shard had then."""
        self._healed: dict[int, int] = {}
        """The greatest view of each shard when all faults stopped, until a block of a later one is final."""

    def begin(self) -> None:
        """Once it is known who is who."""
        document = self._world.document
        self.chains = {committee.shard: [] for committee in document.committees}
        self.oracle = Oracle(
            to_builtins(self._world.genesis), encode(document), self._world.plan.limits, violated, self._world.captured
        )
        self._records = {node.index: _Record(Votes(node)) for node in self._world.nodes}
        self.readers = Readers(self._world, self.oracle) if self._world.captured is not None else None

    @contextmanager
    def guard(self, node: "Host") -> Iterator[None]:
        """No input may make an honest node stop. A liar that trips over itself is merely down."""
        try:
            yield
        except ViolationError:
            raise
        except Exception as error:
            if node.is_honest:
                raise ViolationError("stopped", f"{node} stops: {type(error).__name__}: {str(error)[:200]}") from error
            node.crash()

    def on_document(self, node: "Host", accepted: SignedDocument | Opening) -> None:
        """One document per epoch, the one that follows the rules, whatever else the coordinator says; in force only once a
        quorum of each committee has said so."""
        if accepted.document != self._world.document:
            violated("document", f"{node} accepts a document that it should refuse")
        if isinstance(accepted, Opening):
            for shard in self.chains:
                ready = [member for member in self._world.committee(shard) if member.index in self._ready]
                if len(ready) < self._world.document.electorates[shard].quorum:
                    violated("readiness", f"{node} begins though only {ready} of shard {shard} are ready")

    def on_told(self, node: "Host", message: ToCoordinator) -> None:
        """A node tells its secret to one roll, which is on its disk."""
        pledge = node.pledge
        if isinstance(message, Readiness):
            self._ready.add(node.index)
        elif isinstance(message, Reveal) and (pledge is None or pledge.secret != message.secret or not pledge.roll):
            violated("secret", f"{node} tells its secret to a roll that is not on its disk")
        elif (
            isinstance(message, Reveal) and pledge is not None and self._rolls.setdefault(node.index, pledge.roll) != pledge.roll
        ):
            violated("secret", f"{node} tells its secret to a second roll")

    # -- what honest nodes store -----------------------------------------------------------------------------------

    def on_written(self, node: "Host", effects: Sequence[Row | Persist]) -> None:
        if not node.is_honest:
            return
        record = self._records[node.index]
        for effect in effects:
            if isinstance(effect, Journal):
                record.votes.wrote(effect)
                if effect.slot != "proposal":
                    record.logged.add((effect.view, effect.slot))
            elif isinstance(effect, Commit):
                self._on_commit(node, record, effect)
        if final := [effect.block.block.header.view for effect in effects if isinstance(effect, Commit)]:
            self._check_log(node, record, max(final))

    def _on_commit(self, node: "Host", record: _Record, commit: Commit) -> None:
        certified, header = commit.block, commit.block.block.header
        block_hash, chain = header.hash, self.chains[node.index // self._world.plan.size]
        self._world.tell(node, "stores", f"block {header.height} {block_hash.hex()[:8]} as final", certified)
        record.height = header.height
        self._check_catch_up(node, header.height)
        if header.height <= len(chain):
            if chain[header.height - 1] != block_hash:
                theirs = chain[header.height - 1].hex()[:8]
                violated("agreement", f"{node} finalizes {block_hash.hex()[:8]} at height {header.height}, others {theirs}")
        elif header.height == len(chain) + 1:
            self._check_time(header)
            self._check_progress(header.shard, header.view)
            chain.append(block_hash)
        else:
            violated("agreement", f"{node} finalizes height {header.height} after {len(chain)}")
        shard = node.index // self._world.plan.size
        self.oracle.stored(node, (1, shard), commit.encoded, commit.bundles)
        if self.readers is not None and header.height > self.readers.height(shard):
            self.readers.read(shard, commit.encoded)
        self._check_state(node, record)
        state = node.replica.state if node.replica is not None else None
        if state is not None and state.height == header.height and state.state_root != header.state_root:
            violated("root", f"{node} at height {header.height} has another state root than its block")

    def _check_log(self, node: "Host", record: _Record, view: int) -> None:
        """A commit forgets the votes of its view and earlier ones, no others."""
        record.logged = {(v, slot) for v, slot in record.logged if v > view}
        stored = {(journal.view, journal.slot) for journal in node.disk.journal()}
        if missing := record.logged - stored:
            violated(
                "persistence", f"{node} forgets its {min(missing)[1]} vote in view {min(missing)[0]} before that view is final"
            )

    def _check_time(self, header: Header) -> None:
        skew = self._world.genesis.parameters.clock_skew + self._world.greatest_skew
        if header.time > self._world.wall + skew:
            violated("time", f"block {header.height} of shard {header.shard} is {header.time - self._world.wall} ms ahead")

    def _check_state(self, node: "Host", record: _Record) -> None:
        """The node's own state: cursors never go back; now and then, all totals from scratch."""
        replica = node.replica
        if replica is None:
            return
        for source in self.chains:
            if source != replica.shard:
                cursor = replica.state.cursor(source)
                if cursor < record.cursors.get(source, 0):
                    violated("channel", f"{node} goes back to bundle {cursor} of shard {source}")
                record.cursors[source] = cursor
        record.commits += 1
        if record.commits % _MEMORY_CHECK == 0 and (kept := _kept(replica)) > _MAX_KEPT:
            violated("memory", f"{node} keeps {kept} bytes of what others sent")
        if record.commits % _FULL_CHECK == 0 and replica.state.totals() != recompute_totals(replica.state):
            violated("conservation", f"{node} at height {replica.state.height}: the totals are not the sums")

    def on_recovered(self, node: "Host", recovered: Recovered) -> None:
        """A restart loses nothing that was stored."""
        if not node.is_honest:
            return
        height, stored = recovered.state.height, self._records[node.index].height
        self._records[node.index].waited = set()
        if height < stored:
            violated("durability", f"{node} restarts at height {height}, it had stored {stored}")
        chain = self.chains[node.index // self._world.plan.size]
        if recovered.last is not None and height <= len(chain) and chain[height - 1] != recovered.last.header.hash:
            violated("agreement", f"{node} restarts on another block at height {height}")

    def on_lost_disk(self, node: "Host") -> None:
        """What was stored is lost; what was signed is not."""
        record = self._records[node.index]
        record.votes.lost_disk()
        record.height, record.logged, record.cursors = 0, set(), {}

    # -- what honest nodes send ------------------------------------------------------------------------------------

    def on_sent(self, node: "Host", message: PeerMessage) -> None:
        """Every vote is on disk before it leaves, and no two contradict each other, across restarts."""
        if node.is_honest and node.replica is not None:
            self._records[node.index].votes.sends(node.replica.member, message)
            block = node.replica.consensus.body(message.vote.block) if isinstance(message, Proposal) else None
            if block is not None:  # else it was final before it could be sent
                self._check_turns(self._records[node.index], node.replica, block)

    def _check_turns(self, record: _Record, replica: Replica, block: Block) -> None:
        """In a full block nobody has two transactions while another payer, with one that waited long enough, has none."""
        header, waited = block.header, record.waited
        if header.hash == record.proposed:
            return
        first: dict[bytes, bytes] = {}
        for entry in replica.mempool:
            first.setdefault(entry.payer, entry.id)
        record.proposed, record.waited = header.hash, set(first.values())
        payers = Counter(decode_transaction(encoded).order.payers[0] for encoded in block.transactions)
        parent = replica.branches.after(header.parent)
        if len(block.transactions) < replica.parameters.block_transactions or max(payers.values()) < 2 or parent is None:
            return
        for entry in replica.mempool:
            if entry.payer not in payers and entry.id in waited:
                code = admit(parent, replica.rules, entry.id, entry.transaction, header.time)
                if code is Code.OK:
                    violated("fairness", f"a payer waits while another has {max(payers.values())} in block {header.height}")

    def on_ban(self, node: "Host", other: "Host", reason: str) -> None:
        """Who does as the protocol has it is never dropped by one that does."""
        self._world.tell(node, "drops", f"{other}: {reason}")
        self.dropped_for |= {reason} if node.is_honest else set()
        if node.is_honest and other.is_honest:
            violated("ban", f"{node} drops {other}: {reason}")

    def on_sending(self, node: "Host", effects: Sequence[Effect]) -> None:
        """One event, or the few that came while a write was under way, is no reason for a storm."""
        sent = sum(isinstance(effect, Send | Broadcast) for effect in effects)
        if sent > _MAX_SENT * self._world.plan.size:
            violated("storm", f"{node} sends {sent} messages at once")

    def on_heal(self, back: Sequence["Host"]) -> None:
        """Faults stop. From now on blocks become final within a few views, and who is back now catches up at once."""
        self._is_calm = self._world.plan.is_live
        for shard in self.chains if self._world.plan.is_live else ():
            replicas = [node.replica for node in self._world.committee(shard) if node.is_honest and node.replica is not None]
            views = [replica.consensus.view for replica in replicas]
            self._healed[shard] = max([*views, self.oracle.chains[1, shard].last_view])
        for node in back if self._world.plan.is_live else ():
            height = len(self.chains[node.index // self._world.plan.size])
            if node.is_honest and node.disk.height < height:
                self._behind[node.index] = height

    def _check_catch_up(self, node: "Host", height: int) -> None:
        """Nobody is kept waiting for what others have."""
        if height >= self._behind.get(node.index, height + 1):
            del self._behind[node.index]
            took = self._world.time - self._world.plan.active
            self._world.tell(node, "has caught up", f"in {took} ms")
            if took > _MAX_CATCH_UP:
                violated("catch-up", f"{node} needed {took} ms to catch up, with nothing in its way")

    def on_arrival(self, source: "Host", target: "Host", frame: bytes) -> None:
        """Once nothing is lost any more, what another shard brings to an honest member is soon with all of its committee, but for
        those that it is brought to first, and those that have no room for it yet."""
        is_brought = frame[_PLACE : _PLACE + 2] == _DELIVERY and not source.shares_committee(target) and target.is_honest
        if not is_brought or not self._is_calm or target.replica is None:
            return
        delivery = decode(Frame, frame, MAX_FRAME_BYTES).message
        assert isinstance(delivery, BundleDelivery)
        bundle = delivery.bundle.bundle
        shard = target.index // self._world.plan.size
        if bundle.destination != shard or bundle.source == shard or bundle.source not in self.chains:
            return
        committee = self._world.committee(shard)
        hands = first_hands(bundle, target.replica.electorate)
        others = [node for node in committee if node.is_honest and node.key.public not in hands]
        takers = [(node, node.replica) for node in others if _has_room(node, bundle)]
        if not _has(target, bundle):
            self._world.after(_KEEPING, lambda: self._begin_spread(target, takers, bundle))

    def _begin_spread(self, target: "Host", takers: "_Keepers", bundle: Bundle) -> None:
        if _has(target, bundle):  # else it was not valid, or there was no room
            self._world.after(_SPREADING, lambda: self._check_spread(target, takers, bundle))

    def _check_spread(self, target: "Host", takers: "_Keepers", bundle: Bundle) -> None:
        """Who has taken a state over meanwhile begins anew: what it was brought before is gone."""
        there = [node for node, replica in takers if node.replica is replica]
        if without := [node for node in there if not _has(node, bundle)]:
            violated("spread", f"{target} has bundle {bundle.sequence} of shard {bundle.source}, {without[0]} has not")

    def has_recovered(self) -> bool:
        """Whether each honest shard has a final block of a view that began after all faults stopped."""
        return self._healed.keys().isdisjoint(self._world.honest)

    def _check_progress(self, shard: int, view: int) -> None:
        if view > self._healed.get(shard, view):
            views = view - self._healed.pop(shard)
            if views > _MAX_VIEWS * self._world.plan.size:
                violated("progress", f"the first block of shard {shard} after all faults stopped took {views} views")

    def on_sleep(self, node: "Host", deadline: int) -> None:
        """Nobody is due again at the same moment: that would keep a processor busy for nothing."""
        if node.is_honest and deadline <= self._world.time and node.handled_at == self._world.time:
            violated("busy", f"{node} wants to be woken at {deadline}, which has passed")

    # -- at the end ------------------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Nothing held, all honest members of a committee at one height with one root, and no client ahead of them: a liar may
        have had a certificate first, and shown it."""
        for shard, chain in self.oracle.chains_of(self.oracle.epoch).items():
            if shard == self._world.captured:
                continue
            if chain.undecided and self._world.captured is None:
                return False
            heads = set()
            for node in self._world.committee(shard):
                if node.is_honest:
                    if node.replica is None or node.is_writing:
                        return False
                    state = node.replica.state
                    if state.totals().pending and self._world.captured is None:
                        return False  # in a block that is on no disk yet, so that the oracle has not seen it
                    heads.add((state.height, state.state_root))
            if len(heads) != 1:
                return False
            ((height, _),) = heads
            if any(len(gateway.seen_hashes[shard]) > height for gateway in self._world.gateways):
                return False
        return True

    def check_end(self) -> None:
        """Called when all is settled."""
        self.oracle.check_captured()
        if self._world.plan.is_live:
            if self._world.captured is None:
                self.oracle.check_drained()
            self._check_mempools()
        for node in self._world.nodes:
            if node.is_honest and (self._world.plan.is_live or node.replica is not None):  # else it may never have begun
                assert node.replica is not None
                state = node.replica.state
                if state.totals() != recompute_totals(state):
                    violated("conservation", f"{node}: the totals are not the sums")
                if self._world.plan.is_live and node.disk.height != state.height:
                    violated("persistence", f"{node} stored {node.disk.height} of {state.height} blocks")
        included = self.oracle.transactions.keys()
        for gateway in self._world.gateways:
            self._check_client(gateway, included)
        if self._world.swindler is not None and (swindled := self._world.swindler.submitted & included):
            violated("swindled", f"transaction {min(swindled).hex()[:8]} is in a block, and breaks a rule")

    def _check_mempools(self) -> None:
        """Nobody keeps what is final."""
        for node in self._world.nodes:
            final = self.oracle.chains[1, node.index // self._world.plan.size].ledger.seen
            if (
                node.is_honest
                and node.replica is not None
                and (kept := final.keys() & {entry.id for entry in node.replica.mempool})
            ):
                violated("mempool", f"{node} keeps transaction {min(kept).hex()[:8]}, which is final, in its mempool")

    def _check_client(self, gateway: "Gateway", included: Set[bytes]) -> None:
        """What it was told holds, and payments that can be made are made."""
        if late := gateway.expired & included:
            violated("acknowledged", f"transaction {min(late).hex()[:8]} is final, though {gateway} knows it to be expired")
        for transaction_id in gateway.probes if self._world.plan.is_live else ():
            end = self.oracle.end_at_home(transaction_id)
            is_full = end == (Outcome.REJECTED, Code.LIMIT_EXCEEDED) and {"amount", "waiting"} & self._world.plan.limits.keys()
            if end != (Outcome.COMMITTED, Code.OK) and not is_full:
                violated("refused", f"transaction {transaction_id.hex()[:8]} could be committed, and ends {end}")
        for shard in self._world.honest:
            hashes, known = gateway.seen_hashes[shard], self.chains[shard]
            is_ahead = len(hashes) > len(known) and self._world.plan.is_live  # of a stopped shard a liar alone may have the last
            if is_ahead or hashes[: len(known)] != known[: len(hashes)]:
                violated("acknowledged", f"{gateway} was shown final blocks of shard {shard} that are gone")
        self._check_told(gateway)

    def _check_told(self, gateway: "Gateway") -> None:
        """What it tells of transactions is so."""
        ends = {key: self.oracle.end_at_home(key) for key in [*gateway.receipts, *(t.id for t in gateway.tracked.values())]}
        if not self._world.plan.is_live:
            ends = {key: end for key, end in ends.items() if end is not None}
        for transaction_id, receipt in gateway.receipts.items():
            if ends.get(transaction_id, (receipt.outcome, receipt.code)) != (receipt.outcome, receipt.code):
                violated("acknowledged", f"transaction {transaction_id.hex()[:8]} is no longer {receipt.outcome.name}")
        for tracked in gateway.tracked.values():
            end = ends.get(tracked.id)
            found = Outcome(end[0]).name.lower() if end is not None else "expired"
            if tracked.id in ends and tracked.status.is_final and tracked.status != found:
                text = f"{gateway} shows transaction {tracked.id.hex()[:8]} as {tracked.status}, but it is {found}"
                violated("acknowledged", text)


_Keepers = Sequence[tuple["Host", Replica | None]]
"""Members, and with which replica each was to keep something."""


def _has(node: "Host", bundle: Bundle) -> bool:
    """Whether it has taken it, or keeps it."""
    replica = node.replica
    if replica is None:
        return False
    return bundle.sequence <= replica.state.cursor(bundle.source) or replica.inbox.holds(bundle.source, bundle.sequence)


def _has_room(node: "Host", bundle: Bundle) -> bool:
    return node.replica is not None and bundle.sequence <= node.replica.state.cursor(bundle.source) + inbox.WINDOW


def _kept(replica: Replica) -> int:
    """Bytes in all that hangs on what a member keeps until it is final or refused."""
    found, seen = 0, {id(replica.state), id(replica.rules), id(replica.electorate)}
    waiting: list[object] = [replica.mempool, replica.inbox, replica.consensus.tree, replica.consensus.views]
    waiting.append(replica.assembling.partial)
    while waiting:
        kept = waiting.pop()
        if id(kept) in seen or isinstance(kept, type | FunctionType):
            continue
        seen.add(id(kept))
        if isinstance(kept, bytes):
            found += len(kept)
        waiting += (
            [getattr(kept, name) for name in kept.__struct_fields__] if isinstance(kept, Struct) else gc.get_referents(kept)
        )
    return found
