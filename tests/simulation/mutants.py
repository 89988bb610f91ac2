"""Named mutations of the core, applied at run time: each takes a rule away, and the simulator must notice.

A mutant that survives means that an invariant is missing, or that the faults are too tame.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, structs

from gateway.projection import Status, Tracked
from node import duty
from node.client import blocks
from node.client.decisions import Decisions
from node.client.follower import Follower
from node.consensus import catching_up, voting
from node.consensus.fetching import Fetching
from node.consensus.journal import ProposalRecord, journaled
from node.consensus.round import Round
from node.consensus.simplex import Simplex
from node.consensus.voting import Voting
from node.effects import Broadcast, Commit, Effect, Journal, Tell
from node.ledger import admission, bulkhead, channels, execution, transfer, two_phase_commit
from node.ledger.checkpoint import Checkpointing
from node.ledger.replay import slot_of
from node.ledger.rows import ANSWERED, PREPARED, WAITING, Replayed, channel_key, flow_key
from node.ledger.rows import CURSOR as CURSOR_ROW
from node.ledger.state import Overlay, State
from node.ledger.two_phase_commit import TwoPhaseCommit
from node.membership import Membership
from node.protocol import block, merkle
from node.protocol.address import address_of
from node.protocol.block import CompactBlock, Outcome, Receipt
from node.protocol.certificate import Electorate, Finality, Vote, VoteKind
from node.protocol.chain import Chain
from node.protocol.channel import CertifiedBundle, Decision, PrepareVote
from node.protocol.checkpoint import CertifiedCheckpoint
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.codes import Code
from node.protocol.crypto import digest
from node.protocol.epoch import EpochDocument, Opening, Reveal, SignedDocument
from node.protocol.limits import MAX_BUNDLE_BYTES
from node.protocol.messages import Ballot
from node.protocol.terms import Terms
from node.protocol.transaction import Transaction, decode_transaction
from node.replica import proposing, replica, taking_over, witnesses
from node.replica.assembling import Assembling
from node.replica.checking import Checking
from node.replica.collecting import Collecting
from node.replica.delivering import Delivering
from node.replica.drafts import Draft
from node.replica.inbox import Inbox
from node.replica.mempool import Mempool, read_pooled
from node.replica.naming import Naming
from node.replica.replica import Replica
from node.replica.retention import Retention
from node.replica.serving import Serving
from node.replica.taking_over import TakingOver
from tests.simulation.faults import CAPTURED, draw, handoff
from tests.simulation.plan import Plan

Original = Any
Consensus = Simplex[Draft]


class Mutation(Struct, frozen=True):
    """``attribute`` of ``owner`` is replaced by what ``make`` makes of the original."""

    owner: Any
    attribute: str
    make: Callable[[Original], Any]


class Mutant(Struct, frozen=True):
    """``first``, ``within``: the mixed seeds, from the one to the other, in which it is caught; the tests hold it to that.
    ``behaviour``: of a liar that each committee has in these runs: who does not check is caught only by who cheats. ``lies``: of
    the coordinator, likewise. ``limits``: caps that are set small in them."""

    what: str
    within: int
    mutations: tuple[Mutation, ...]
    behaviour: str = ""
    lies: tuple[str, ...] = ()
    limits: dict[str, int] = {}
    is_of_handoff: bool = False
    """Whether in these runs states are handed over (``faults.handoff``)."""
    first: int = 1

    def plan(self, seed: int) -> Plan:
        if self.is_of_handoff:
            return handoff(seed, self.behaviour)
        plan = draw(seed, self.behaviour)
        return structs.replace(plan, lies=self.lies or plan.lies, limits=plan.limits | self.limits)


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Run with one mutation applied; None: the core as it is."""
    with applied(MUTANTS[name].mutations if name is not None else ()):
        yield


@contextmanager
def applied(mutations: Sequence[Mutation]) -> Iterator[None]:
    originals = [(m, m.owner.__dict__[m.attribute]) for m in mutations]
    try:
        for mutation, original in originals:
            setattr(mutation.owner, mutation.attribute, mutation.make(original))
        yield
    finally:
        for mutation, original in originals:
            setattr(mutation.owner, mutation.attribute, original)


# -- consensus -------------------------------------------------------------------------------------------------------------


def _late_journal(original: Original) -> Any:
    """The journal record of a notarize vote comes with the next event's effects."""

    def finish(self: Replica, at: Any) -> list[Effect]:
        effects: list[Effect] = original(self, at)
        due: list[Effect] = self.__dict__.pop("late", [])
        self.__dict__["late"] = [e for e in effects if isinstance(e, Journal) and e.slot == "notarize"]
        return due + [e for e in effects if e not in self.__dict__["late"]]

    return finish


def _quorum_2f(_: Original) -> Any:
    return property(lambda self: 2 * self.faults_tolerated)


def _finalize_what_was_nullified(original: Original) -> Any:
    def finalize(self: Voting, notarization: Any) -> Any:
        own = self._views.read(notarization.view).own
        nullify = own.pop(VoteKind.NULLIFY, None)
        cast = original(self, notarization)
        if nullify is not None:
            own[VoteKind.NULLIFY] = nullify
        return cast

    return finalize


def _nullify_what_was_finalized(original: Original) -> Any:
    def nullify(self: Consensus, view: int) -> bool:
        own = self.views.read(view).own
        finalize = own.pop(VoteKind.FINALIZE, None)
        done: bool = original(self, view)
        if finalize is not None:
            own[VoteKind.FINALIZE] = finalize
        return done

    return nullify


def _vote_for_every_proposal(original: Original) -> Any:
    def vote(self: Consensus) -> None:
        original(self)
        known, view = self.views.read(self.view), self.view
        first = known.own.get(VoteKind.NOTARIZE)
        for proposal in self._proposals:
            block, others = proposal.vote.block, self.__dict__.setdefault("others", set())
            if first is not None and first.block != block and block not in others and self._is_justified(proposal.block.header):
                others.add(block)
                second = self.seat.vote(VoteKind.NOTARIZE, view, block)
                self._effects += [journaled(view, second), Broadcast(Ballot(second))]
                return

    return vote


def _believe_certificates(_: Original) -> Any:
    def keep(self: Round, certificate: Any, electorate: Any) -> bool:
        self._certificates.setdefault(certificate.kind, certificate)
        return True

    return keep


def _journal_without_bodies(original: Original) -> Any:
    def stripped(view: int, record: Any) -> Journal:
        if isinstance(record, ProposalRecord):
            record = structs.replace(record, block=structs.replace(record.block, transactions=()))
        journal: Journal = original(view, record)
        return journal

    return stripped


def _header_of_any_payload(_: Original) -> Any:
    return lambda self: self.header.payload_root


def _any_transactions(_: Original) -> Any:
    """What the leader sends is what it was asked for."""

    def answered(self: Assembling, member: int, reply: Any) -> Any:
        partial = self.partial.get(reply.block)
        if partial is None or partial.proposal.vote.signer != member or len(reply.transactions) != len(partial.missing):
            return None
        leaves = [leaf for leaf in partial.proposal.block.leaves if leaf in partial.missing]
        pairs = zip(leaves, reply.transactions, strict=True)
        try:
            return self._fill(reply.block, {leaf: structs.replace(read_pooled(encoded), leaf=leaf) for leaf, encoded in pairs})
        except DecodeError:
            return None

    return answered


def _nothing(_: Original) -> Any:
    return lambda *arguments, **names: None


def _none_of_them(_: Original) -> Any:
    return lambda *arguments, **names: []


def _false(_: Original) -> Any:
    return lambda *arguments, **names: False


def _true(_: Original) -> Any:
    return lambda *arguments, **names: True


def _no_effects(_: Original) -> Any:
    return lambda *arguments, **names: []


def _any_proposer(original: Original) -> Any:
    """Who says that it leads a view does."""

    def welcomes(self: Consensus, proposal: Any, now: int) -> bool:
        self.__dict__["leader_of"] = lambda view: proposal.block.header.proposer
        try:
            welcome: bool = original(self, proposal, now)
        finally:
            del self.__dict__["leader_of"]
        return welcome

    return welcomes


def _certificate_of_any_block(_: Original) -> Any:
    """A finalization proves whatever block it comes with."""

    def proves(self: Finality, header: Any, electorate: Electorate) -> bool:
        is_here = (header.document, header.shard) == (electorate.document, electorate.shard)
        return is_here and self.certificate.kind is VoteKind.FINALIZE and self.certificate.is_valid(electorate)

    return proves


def _under_its_own_document(original: Original) -> Any:
    """A header is final by the signatures that its own document asks for."""

    def proves(self: Finality, header: Any, electorate: Electorate) -> bool:
        return bool(original(self, header, structs.replace(electorate, document=header.document)))

    return proves


def _execute_of_any_document(original: Original) -> Any:
    def execute(self: Replica, wanted: Any) -> Any:
        electorate = self.electorate
        self.electorate = structs.replace(electorate, document=wanted.block.header.document)
        try:
            return original(self, wanted)
        finally:
            self.electorate = electorate

    return execute


def _proves_of_any_document(original: Original) -> Any:
    def proves(self: Finality, header: Any, electorate: Electorate) -> bool:
        is_here = header.shard == electorate.shard and not self.path
        certificate = self.certificate
        named = (certificate.kind, certificate.view, certificate.block) == (VoteKind.FINALIZE, header.view, header.hash)
        return (is_here and named and certificate.is_valid(electorate)) or bool(original(self, header, electorate))

    return proves


def _network_of_genesis(_: Original) -> Any:
    return property(lambda self: digest("network", self.previous)[:16])


def _one(_: Original) -> Any:
    return 1


# -- handing a state over ----------------------------------------------------------------------------------------------------


def _of_any_block(_: Original) -> Any:
    def is_valid(self: CertifiedCheckpoint, electorate: Electorate) -> bool:
        proven = self.finality.proves(self.header, electorate)
        return proven and self.certifying_finality.proves(self.certifying, electorate)

    return is_valid


def _rows_only(original: Original) -> Any:
    def want(self: TakingOver, place: bytes, expected: Any) -> None:
        if not isinstance(expected, Replayed):
            original(self, place, expected)

    return want


def _far_away(_: Original) -> Any:
    return 1 << 40


# -- ledger ----------------------------------------------------------------------------------------------------------------


def _forget_one_slot_early(original: Original) -> Any:
    def commit(self: State, executed: Any) -> Any:
        stored = original(self, executed)
        for slot in [slot for slot in self._seen if slot <= slot_of(self.time)]:
            del self._seen[slot]
        return stored

    return commit


def _forget_what_is_due(original: Original) -> Any:
    """What a block had no room to wake is not woken any more."""

    def commit(self: State, executed: Any) -> Any:
        stored = original(self, executed)
        self._alarms = sorted(alarm for alarm in self._alarms if alarm[0] >= self.time)
        return stored

    return commit


def _seen_only_below(_: Original) -> Any:
    """A duplicate is not looked for in the blocks that are not final yet."""

    def has_seen(self: Overlay, transaction_id: bytes, valid_until: int) -> bool:
        return transaction_id in self.seen or self._state.has_seen(transaction_id, valid_until)

    return has_seen


def _keep(kind: bytes) -> Callable[[Original], Any]:
    """A decided transaction's record stays."""

    def make(original: Original) -> Any:
        def forget(self: TwoPhaseCommit, key: bytes, queue: dict[int, int], shard: int) -> None:
            if not key.endswith(kind):
                original(self, key, queue, shard)

        return forget

    return make


def _yes_without_hold(original: Original) -> Any:
    def prepare(self: TwoPhaseCommit, source: int, record: Any) -> None:
        module = vars(two_phase_commit)
        module["reserve"] = lambda *arguments: Code.OK
        try:
            original(self, source, record)
        finally:
            module["reserve"] = transfer.reserve

    return prepare


def _tell_twice(original: Original) -> Any:
    """Home sends its decision twice."""

    def decide(self: TwoPhaseCommit, transaction_id: bytes, waiting: Any, code: Code, refused_by: int | None = None) -> None:
        original(self, transaction_id, waiting, code, refused_by)
        for shard in waiting.participants:
            self.outbox.send(shard, Decision(transaction_id, code is Code.OK))

    return decide


def _home_commits_on_any_answer(_: Original) -> Any:
    def count(self: TwoPhaseCommit, source: int, vote: PrepareVote) -> None:
        waiting = self.overlay.waiting(vote.transaction_id)
        if waiting is not None:
            self._decide(vote.transaction_id, waiting, Code.OK)

    return count


def _home_commits_on_the_first_yes(_: Original) -> Any:
    def count(self: TwoPhaseCommit, source: int, vote: PrepareVote) -> None:
        waiting = self.overlay.waiting(vote.transaction_id)
        if waiting is not None:
            self._decide(vote.transaction_id, waiting, vote.code)

    return count


def _participant_decides_alone(original: Original) -> Any:
    """A participant releases its holds when the deadline has passed, without the home's word."""

    def wake(self: TwoPhaseCommit) -> None:
        original(self)
        overlay = self.overlay
        for key in sorted(overlay._state.records):
            if key.endswith(ANSWERED) and overlay.record(key) is not None:
                until, transaction_id = overlay.record(key), key[: -len(ANSWERED)]
                prepared = overlay.prepared(transaction_id)
                assert isinstance(until, int)
                if prepared is not None and overlay.time > until - 12_000:
                    transfer.release(overlay, self.rules, transfer.routed(self.rules, prepared.legs))
                    self._forget(transaction_id + PREPARED, overlay.prepared_for, prepared.home)
                    self.receipts.append(Receipt(transaction_id, Outcome.REJECTED))

    return wake


def _commit_becomes_abort(original: Original) -> Any:
    """Home commits in the second half of the time it has, and tells its participants to abort."""

    def decide(self: TwoPhaseCommit, transaction_id: bytes, waiting: Any, code: Code, refused_by: int | None = None) -> None:
        original(self, transaction_id, waiting, code, refused_by)
        if code is Code.OK and self.overlay.time > waiting.deadline - self.rules.parameters.commit_timeout // 2:
            for shard in waiting.participants:
                sent = self.outbox._records[shard]
                sent[-1] = Decision(transaction_id, False)

    return decide


def _out_of_sequence(_: Original) -> Any:
    return lambda view, rules, bundle: None if bundle.sequence > view.cursor(bundle.source) else "taken"


def _following_with_gaps(_: Original) -> Any:
    def following(self: Inbox, source: int, cursor: int) -> Iterator[Any]:
        channel = self._channels[source]
        yield from (channel[sequence] for sequence in sorted(channel) if sequence > cursor)

    return following


def _admit_regardless(*ignored: Code) -> Callable[[Original], Any]:
    """Some reasons to refuse a transaction are overlooked."""

    def make(original: Original) -> Any:
        def admit(*arguments: Any) -> Code:
            code: Code = original(*arguments)
            return Code.OK if code in ignored else code

        return admit

    return make


def _admission(*ignored: Code) -> tuple[Mutation, ...]:
    places = ((admission, "screen"), (execution, "screen"), (proposing, "suits"), (proposing, "admit"), (replica, "admit"))
    funds: tuple[Mutation, ...] = ()
    if Code.INSUFFICIENT_FUNDS in ignored:
        funds = _on(execution, "is_funded", _true) + _on(proposing, "is_funded", _true)
    return tuple(Mutation(module, name, _admit_regardless(*ignored)) for module, name in places) + funds


def _frozen_ignored(original: Original) -> Any:
    def refusal(overlay: Any, rules: Any, routes: Any) -> Code:
        code: Code = original(overlay, rules, routes)
        return Code.OK if code is Code.ACCOUNT_FROZEN else code

    return refusal


def _overdraft(_: Original) -> Any:
    """Nobody is found to owe anything."""

    def needs(rules: Any, routes: Any) -> Any:
        return {}, {}

    return needs


def _skip_deleted_rows(original: Original) -> Any:
    """A checkpoint does not say which rows are gone."""

    def advance(self: Checkpointing, *arguments: Any) -> Any:
        part = original(self, *arguments)
        return part._replace(rows=tuple(row for row in part.rows if row[1] is not None))

    return advance


def _skip_the_first_slice(original: Original) -> Any:
    """What was hashed with the first block after a checkpoint does not reach the disk."""

    def advance(self: Checkpointing, height: int, *arguments: Any) -> Any:
        part = original(self, height, *arguments)
        return part._replace(rows=()) if height == part.height + 1 else part

    return advance


def _whole_with_the_first_slice(original: Original) -> Any:
    """A checkpoint counts as soon as some of its rows are there."""

    def advance(self: Checkpointing, *arguments: Any) -> Any:
        part = original(self, *arguments)
        return part._replace(certified_at=self.due) if part.height and part.rows else part

    return advance


def _root_of_now(_: Original) -> Any:
    """The header at a checkpoint has the root as of its parent."""

    def checkpoint_root(self: Overlay) -> bytes:
        below = reversed(self.uncommitted()[1:])
        written = [*self._state._checkpointing.written.items(), *(row for overlay in below for row in overlay.rows())]
        return self._state._checkpointing.root(written)

    return checkpoint_root


def _later_values(original: Original) -> Any:
    """What is written after a checkpoint replaces what is not hashed yet of it."""

    def write(self: Checkpointing, rows: Any) -> None:
        written = list(rows)
        original(self, written)
        for key, value in written:
            if key in self._left.values:
                self._left.values[key] = value

    return write


def _count_on(_: Original) -> Any:
    """A tally never begins again."""
    return lambda units: units


def _run_out(original: Original) -> Any:
    """What would take a tally over its end is refused: the channel is closed for good."""

    def covers(overlay: Any, rules: Any, routes: Any, home: int) -> bool:
        for (shard, suffix), (entering, _) in transfer.incoming(rules, routes, home).items():
            if overlay.flow(flow_key(shard, suffix)).entered + entering >= block._TALLIES:
                return False
        return bool(original(overlay, rules, routes, home))

    return covers


def _cursor_stays(_: Original) -> Any:
    def advance(overlay: Overlay, bundle: Any) -> None:
        key = channel_key(bundle.source, CURSOR_ROW)
        overlay.records[key] = overlay.cursor(bundle.source)

    return advance


# -- replica ---------------------------------------------------------------------------------------------------------------


def _forget_votes_of_later_views(original: Original) -> Any:
    """A commit deletes the journal of later views, too."""

    def finish(self: Replica, at: Any) -> list[Effect]:
        effects: list[Effect] = original(self, at)
        return [structs.replace(e, view=e.view + 2) if isinstance(e, Commit) else e for e in effects]

    return finish


def _any_signature(original: Original) -> Any:
    def checked(self: Replica, token: int, verdicts: Sequence[bool], at: Any) -> list[Effect]:
        effects: list[Effect] = original(self, token, [True] * len(verdicts), at)
        return effects

    return checked


def _believe_one_claim(_: Original) -> Any:
    def newly_taken(self: Delivering) -> Any:
        return tuple((destination, max(claims.values())) for destination, claims in self._claims.items())

    return newly_taken


# -- the node's part in the network ------------------------------------------------------------------------------------------


def _vote_with_any_disk(original: Original) -> Any:
    """A seat is enough."""
    return lambda document, public_key, pledge: True


def _believe_documents(_: Original) -> Any:
    def check(self: SignedDocument, genesis: Any) -> None:
        return

    return check


def _believe_the_last_word(original: Original) -> Any:
    """A second document takes the place of the first."""

    def take(self: Membership, content: Any) -> Any:
        if not self.begun:
            self.accepted = None
        return original(self, content)

    return take


def _believe_every_roll(original: Original) -> Any:
    def take(self: Membership, signed: Any) -> Any:
        if self.pledge is not None and self.pledge.roll != signed.roll.hash:
            self.pledge = structs.replace(self.pledge, roll=b"")
        return original(self, signed)

    return take


def _tell_the_secret_at_once(original: Original) -> Any:
    def apply(self: Membership) -> Any:
        effects = original(self)
        told = [Tell(Reveal(self.attempt, self.pledge.secret))] if self.pledge is not None and effects else []
        return [*effects, *told]

    return apply


def _do_not_recompute(_: Original) -> Any:
    def check(self: EpochDocument, genesis: Any) -> None:
        self.roll.check(genesis)

    return check


def _rely_on_own(original: Original) -> Any:
    def relied_on(rules: Any, home: int, transaction: Transaction) -> Transaction | None:
        shard_of = rules.shards.shard_of
        pairs = zip(transaction.order.payers, transaction.witnesses, strict=True)
        own = tuple(witness for payer, witness in pairs if shard_of(payer) == rules.shard)
        return Transaction(transaction.order, own) if own else None

    return relied_on


def _rely_on_homes_issuers(original: Original) -> Any:
    def relied_on(rules: Any, home: int, transaction: Transaction) -> Transaction | None:
        found = original(rules, home, transaction)
        issuers = set(rules.issuers.values())
        kept = tuple(w for w in found.witnesses if address_of(w.public_key) not in issuers) if found is not None else ()
        return Transaction(transaction.order, kept) if kept else None

    return relied_on


def _answer_again(original: Original) -> Any:
    def refusal(self: TwoPhaseCommit, source: int, deadline: int, transaction_id: bytes, *rest: Any, **more: Any) -> Code:
        code: Code = original(self, source, deadline, transaction_id, *rest, **more)
        decided = self.overlay.prepared(transaction_id) is None
        return Code.OK if code is Code.DUPLICATE and decided else code

    return refusal


def _believe_all(_: Original) -> Any:
    return lambda known: lambda transaction: True


def _read_all(original: Original) -> Any:
    """A block is proven only if all in it can be read."""

    def prove(certified: Any, electorate: Any) -> Any:
        proven = original(certified, electorate)
        if proven is not None and proven.unreadable:
            raise DecodeError("no transaction")
        return proven

    return prove


def _follow_sense(original: Original) -> Any:
    def extend(self: Follower, block: Any, notables: Any) -> bool:
        return not self._oddities(block) and bool(original(self, block, notables))

    return extend


def _prepare_transactions(original: Original) -> Any:
    def prepare(self: TwoPhaseCommit, source: int, record: Any) -> None:
        decode_transaction(record.transaction)
        original(self, source, record)

    return prepare


def _take_unproven(_: Original) -> Any:
    def taken(self: Decisions, certified: Any) -> Iterator[tuple[int, bytes, bool]]:
        for encoded in certified.block.bundles:
            try:
                bundle = decode(CertifiedBundle, encoded, MAX_BUNDLE_BYTES).bundle
            except DecodeError:
                continue
            for record in bundle.records:
                if isinstance(record, Decision):
                    yield bundle.source, record.transaction_id, record.commit

    return taken


def _on(owner: Any, attribute: str, make: Callable[[Original], Any]) -> tuple[Mutation, ...]:
    return (Mutation(owner, attribute, make),)


def _arrival_order(_: Original) -> Any:
    def in_turn(self: Mempool, fits: Any) -> Iterator[Any]:
        return filter(fits, self)

    return in_turn


def _of_any_document(_: Original) -> Any:
    def statement(self: Electorate, kind: VoteKind, view: int, block: bytes) -> bytes:
        return digest("vote", encode([bytes(32), self.shard, kind, view, block]))

    return statement


def _one_queue(_: Original) -> Any:
    return lambda rules, participants: 0


def _believe_refusals(_: Original) -> Any:
    """What f+1 members refuse is rejected."""

    def refused(self: Tracked, code: Code, chain: Chain) -> None:
        if chain == self.home and self.is_waiting and code is not Code.DUPLICATE:
            self.status, self.code = Status.REJECTED, code

    return refused


def _no_breach(_: Original) -> Any:
    return lambda self, legs: Code.OK


def _leave_dust(original: Original) -> Any:
    def reserve(overlay: Any, rules: Any, routes: Any) -> Code:
        kept, rules.terms.smallest_balances = rules.terms.smallest_balances, {}
        try:
            code: Code = original(overlay, rules, routes)
        finally:
            rules.terms.smallest_balances = kept
        return code

    return reserve


def _keep_none(original: Original) -> Original:
    return lambda self, height, time, checkpoint: height


MUTANTS: dict[str, Mutant] = {
    "vote-sent-before-persisted": Mutant(
        "a notarize vote reaches the disk one event after it was sent",
        5,
        _on(Replica, "_finish", _late_journal),
    ),
    "quorum-2f": Mutant("certificates need 2f signatures", 5, _on(Electorate, "quorum", _quorum_2f), "equivocating proposer"),
    "finalize-after-nullify": Mutant(
        "finalize is voted in a view that was nullified", 5, _on(Voting, "finalize", _finalize_what_was_nullified)
    ),
    "nullify-after-finalize": Mutant(
        "a finalize vote is no reason not to nullify, and its notarization is not kept",
        30,
        _on(Simplex, "_nullify", _nullify_what_was_finalized) + _on(Voting, "_take_back", _nothing),
        first=6,
    ),
    "votes-for-both-proposals": Mutant(
        "an equivocating leader gets two votes",
        12,
        _on(Simplex, "_vote_for_proposal", _vote_for_every_proposal),
        "equivocating proposer",
        first=4,
    ),
    "certificates-unchecked": Mutant(
        "certificates received whole are believed",
        5,
        _on(Round, "keep", _believe_certificates),
        "forged certificates",
    ),
    "votes-not-reloaded": Mutant("a restart forgets own votes", 5, _on(Voting, "restore", _none_of_them)),
    "votes-deleted-too-early": Mutant(
        "a commit deletes votes of later views from the disk", 5, _on(Replica, "_finish", _forget_votes_of_later_views)
    ),
    "bodies-not-fetched": Mutant(
        "a body that is missing is not asked for", 20, _on(Fetching, "ask", _no_effects), "equivocating proposer", first=2
    ),
    "journal-without-bodies": Mutant(
        "the transactions of a block voted for do not reach the disk", 5, _on(voting, "journaled", _journal_without_bodies)
    ),
    "leaves-unchecked": Mutant(
        "the leaves of a proposal need not be those of its header",
        12,
        _on(CompactBlock, "payload_root", _header_of_any_payload),
        "swapped bodies",
    ),
    "transactions-believed": Mutant(
        "what a leader sends is what it was asked for",
        12,
        _on(Assembling, "answered", _any_transactions),
        "other transactions",
        first=11,
    ),
    "fetched-unchecked": Mutant(
        "the signatures of what a proposal brings are not checked", 12, _on(Checking, "proposal", _nothing), "invalid blocks"
    ),
    "roots-unchecked": Mutant(
        "voters do not compare the roots", 12, _on(execution.Execution, "gives", _true), "invalid blocks", first=6
    ),
    "signatures-unchecked": Mutant(
        "voters do not look at the verdicts on signatures",
        12,
        _on(Replica, "on_signatures_checked", _any_signature),
        "invalid blocks",
    ),
    "block-time-unchecked": Mutant(
        "a block may be far in the future", 30, _on(Replica, "_is_timely", _true), "invalid blocks", first=8
    ),
    "abort-after-commit": Mutant(
        "home commits late, and tells participants to abort", 5, _on(TwoPhaseCommit, "_decide", _commit_becomes_abort)
    ),
    "commit-on-first-yes": Mutant(
        "home does not wait for all participants", 12, _on(TwoPhaseCommit, "_count_vote", _home_commits_on_the_first_yes)
    ),
    "commit-on-any-answer": Mutant(
        "home takes a no for a yes", 12, _on(TwoPhaseCommit, "_count_vote", _home_commits_on_any_answer)
    ),
    "participant-decides-alone": Mutant(
        "a participant releases its holds by itself", 12, _on(TwoPhaseCommit, "wake", _participant_decides_alone)
    ),
    "yes-without-hold": Mutant(
        "a participant votes yes and holds nothing", 5, _on(TwoPhaseCommit, "_prepare", _yes_without_hold)
    ),
    "hold-not-released": Mutant("an abort leaves the hold", 12, _on(two_phase_commit, "release", _nothing)),
    "decision-applied-twice": Mutant(
        "a participant obeys a decision each time it comes, and it comes twice",
        5,
        _on(TwoPhaseCommit, "_decide", _tell_twice) + _on(TwoPhaseCommit, "_forget", _keep(PREPARED)),
    ),
    "decided-stays-waiting": Mutant(
        "home keeps what it decided, and expires it later", 5, _on(TwoPhaseCommit, "_forget", _keep(WAITING))
    ),
    "deadline-ignored": Mutant("home waits for ever", 12, _on(TwoPhaseCommit, "wake", _nothing)),
    "due-over-the-cap-dropped": Mutant(
        "what a block had no room to wake is forgotten", 12, _on(State, "commit", _forget_what_is_due), limits={"due": 1}, first=5
    ),
    "tallies-count-on": Mutant(
        "what came in since genesis is counted without end", 1, _on(transfer, "tally", _count_on), limits={"tallies": 1 << 18}
    ),
    "tallies-run-out": Mutant(
        "who sends to and fro closes a channel for all", 1, _on(bulkhead, "covers", _run_out), limits={"tallies": 1 << 18}
    ),
    "cursor-not-advanced": Mutant("a channel's cursor stays", 5, _on(channels, "advance", _cursor_stays)),
    "bundle-out-of-sequence": Mutant(
        "bundles are taken as they come",
        12,
        _on(channels, "misfit", _out_of_sequence) + _on(Inbox, "following", _following_with_gaps),
        "withheld bundles",
    ),
    "bundle-unverified": Mutant("bundles need no proof", 5, _on(CertifiedBundle, "is_valid", _true), "forged bundles"),
    "bundles-not-sent-again": Mutant(
        "nobody sees to it that a lost bundle comes again",
        12,
        _on(Delivering, "_again", _no_effects)
        + _on(Collecting, "_ask_for_missing", _no_effects)
        + _on(Collecting, "ask_for_more", _no_effects),
        "withheld bundles",
        first=7,
    ),
    "bundles-not-passed-on": Mutant(
        "who is brought a bundle keeps it to itself", 12, _on(Collecting, "_pass_on", _no_effects), "hoarded bundles"
    ),
    "named-bundles-not-asked-for": Mutant(
        "who is told of a bundle waits until it is brought",
        12,
        _on(Naming, "named", _nothing),
        "bundles only named",
    ),
    "named-bundles-not-given": Mutant(
        "who named a bundle gives it to nobody who asks", 12, _on(Serving, "named", _no_effects), "bundles only named", first=3
    ),
    "replay-window-off-by-one": Mutant(
        "ids are forgotten one slot before they expire", 5, _on(State, "commit", _forget_one_slot_early)
    ),
    "duplicate-in-fork": Mutant(
        "duplicates are not looked for in blocks that are not final yet", 20, _on(Overlay, "has_seen", _seen_only_below), first=7
    ),
    "expired-included": Mutant("a transaction is included after its time", 5, _admission(Code.EXPIRED), first=2),
    "network-unchecked": Mutant("a payment of another network is taken", 12, _admission(Code.WRONG_NETWORK), first=4),
    "document-unbound": Mutant("a vote counts in every document", 5, _on(Electorate, "statement", _of_any_document)),
    "bundles-of-another-document": Mutant(
        "what is signed under the document that it names itself is proven",
        1,
        _on(Finality, "proves", _under_its_own_document),
        "twin network",
    ),
    "header-of-another-document": Mutant(
        "a header may name any document",
        4,
        _on(Replica, "_execute", _execute_of_any_document) + _on(Finality, "proves", _proves_of_any_document),
        "another document",
        first=3,
    ),
    "network-of-genesis-only": Mutant(
        "payments of one document count under all of a genesis", 1, _on(EpochDocument, "network_id", _network_of_genesis)
    ),
    "boaster-waited-for": Mutant(
        "who catches up waits for one peer before it asks the next",
        9,
        _on(catching_up, "_MAX_REQUESTS", _one),
        "silent boaster",
    ),
    "one-queue": Mutant(
        "who waits for one shard takes the room of who waits for another",
        12,
        _on(two_phase_commit, "queue_of", _one_queue),
        limits={"waiting": 1},
        first=3,
    ),
    "duplicate-included": Mutant("a transaction is included twice", 20, _admission(Code.DUPLICATE), "invalid blocks", first=5),
    "unfunded-included": Mutant("who holds nothing gets block space", 5, _admission(Code.INSUFFICIENT_FUNDS)),
    "unfunded-voted-for": Mutant(
        "voters do not ask whether a payer holds anything", 12, _on(execution, "is_funded", _true), "invalid blocks", first=2
    ),
    "fee-unchecked": Mutant("orders need not pay fees, nor more than dust", 12, _on(Terms, "breach", _no_breach), first=2),
    "dust-left": Mutant(
        "a payment across shards may leave dust",
        12,
        tuple(Mutation(module, "reserve", _leave_dust) for module in (execution, two_phase_commit)),
        first=2,
    ),
    "one-payer-takes-all": Mutant(
        "transactions go into blocks in order of arrival", 12, _on(Mempool, "in_turn", _arrival_order), first=7
    ),
    "refusal-taken-for-verdict": Mutant("a gateway believes refusals", 5, _on(Tracked, "refused", _believe_refusals)),
    "frozen-ignored": Mutant("frozen accounts pay", 12, _on(transfer, "_refusal", _frozen_ignored), first=2),
    "funds-unchecked": Mutant("payments across shards need no funds", 5, _on(transfer, "_needs", _overdraft)),
    "checkpoint-keeps-deleted-rows": Mutant(
        "a checkpoint keeps rows that are gone",
        20,
        _on(Checkpointing, "advance", _skip_deleted_rows),
        first=12,
    ),
    "slice-skipped": Mutant("some rows of a checkpoint are not stored", 12, _on(Checkpointing, "advance", _skip_the_first_slice)),
    "checkpoint-whole-too-early": Mutant(
        "a checkpoint counts before all its rows are stored", 12, _on(Checkpointing, "advance", _whole_with_the_first_slice)
    ),
    "root-of-now": Mutant(
        "a checkpoint's header has the root as of its parent, not as of the checkpoint before",
        5,
        _on(Overlay, "checkpoint_root", _root_of_now),
    ),
    "checkpoint-takes-later-values": Mutant(
        "rows are hashed as they are when their turn comes", 12, _on(Checkpointing, "write", _later_values)
    ),
    "parts-unchecked": Mutant(
        "parts of a checkpoint need not be those that it has",
        2,
        _on(taking_over, "_is_right", _true),
        "false parts",
        is_of_handoff=True,
    ),
    "part-taken-twice": Mutant(
        "a part may be in an answer twice",
        8,
        _on(taking_over, "_may_be_one_answer", _true),
        "false parts",
        is_of_handoff=True,
        first=7,
    ),
    "checkpoint-unproven": Mutant(
        "any checkpoint that is offered is one",
        11,
        _on(CertifiedCheckpoint, "is_valid", _true),
        "another checkpoint",
        is_of_handoff=True,
        first=10,
    ),
    "checkpoint-of-another-block": Mutant(
        "a checkpoint's header does not say of which block the rows are",
        11,
        _on(CertifiedCheckpoint, "is_valid", _of_any_block),
        "another checkpoint",
        is_of_handoff=True,
        first=10,
    ),
    "ids-left-out": Mutant(
        "a state is handed over without the ids of the replay set", 2, _on(TakingOver, "_want", _rows_only), is_of_handoff=True
    ),
    "replay-set-not-restored": Mutant(
        "a state that is brought back has seen nothing", 6, _on(State, "_load_ids", _nothing), is_of_handoff=True
    ),
    "own-progress-unnoticed": Mutant(
        "who got past a checkpoint meanwhile begins anew with it all the same",
        6,
        _on(TakingOver, "moved", _nothing) + _on(TakingOver, "waits", _false),
        is_of_handoff=True,
    ),
    "lost-checkpoint-waited-for": Mutant(
        "who takes over a checkpoint that nobody has any more goes on asking for it",
        12,
        _on(TakingOver, "_is_hopeless", _false),
        "old checkpoint",
        is_of_handoff=True,
        first=5,
    ),
    "silent-source-waited-for": Mutant(
        "who is silent is waited for, and nobody else asked",
        24,
        _on(taking_over, "_SLOW", _far_away) + _on(taking_over, "_TIMEOUT", _far_away),
        "withheld parts",
        is_of_handoff=True,
        first=24,
    ),
    "finality-unchecked": Mutant("any proof makes a block final", 12, _on(Finality, "proves", _true), "forged finality", first=2),
    "finality-of-another-block": Mutant(
        "a certificate proves a block that it does not name",
        30,
        _on(Finality, "proves", _certificate_of_any_block),
        "forged finality",
        first=4,
    ),
    "proposer-unchecked": Mutant("anybody may propose", 5, _on(Simplex, "welcomes", _any_proposer), "out of turn"),
    "votes-unverified": Mutant("votes need no signature", 5, _on(Vote, "is_valid", _true), "bad signatures"),
    "witnesses-unverified": Mutant(
        "every signature under a payment is valid", 12, _on(Transaction, "has_valid_signatures", _true), "invalid blocks"
    ),
    "branches-unverified": Mutant("every Merkle branch is right", 12, _on(merkle, "verify", _true), "forged bundles"),
    "work-unchecked": Mutant("blocks need not be mined", 60, _on(Replica, "_is_mined", _true), "invalid blocks", first=10),
    "votes-with-a-new-disk": Mutant(
        "a new database votes as if it were the one that registered",
        12,
        _on(duty, "is_bound", _vote_with_any_disk),
        first=2,
    ),
    "document-unchecked": Mutant(
        "any document is believed",
        3,
        _on(SignedDocument, "check", _believe_documents),
        lies=("wrong assignment",),
    ),
    "untaken-bundles-forgotten": Mutant(
        "one member of the destination suffices to have bundles forgotten",
        12,
        _on(Delivering, "newly_taken", _believe_one_claim),
        "claimed bundles",
        first=3,
    ),
    "skip-unchecked": Mutant(
        "voters do not look where a header skips to", 12, _on(Replica, "_is_linked", _true), "invalid blocks", first=11
    ),
    "second-document-believed": Mutant(
        "the coordinator's last word counts",
        3,
        _on(Membership, "_take_document", _believe_the_last_word) + _on(Membership, "_check_alone", _nothing),
        lies=("dropped secret",),
    ),
    "document-not-recomputed": Mutant(
        "seats need not follow from roll and secrets",
        3,
        _on(EpochDocument, "check_first", _do_not_recompute),
        lies=("wrong assignment",),
    ),
    "second-roll-believed": Mutant(
        "the last roll counts", 3, _on(Membership, "_take_roll", _believe_every_roll), lies=("second roll",)
    ),
    "reveals-before-the-roll": Mutant(
        "a node tells its secret when it applies", 3, _on(Membership, "_apply", _tell_the_secret_at_once)
    ),
    "begins-without-readies": Mutant(
        "readiness is not checked", 3, _on(Opening, "check_quorums", _nothing), lies=("nobody is ready",)
    ),
    "witnesses-of-others-unchecked": Mutant(
        "a participant checks the witnesses of its own payers only",
        5,
        _on(two_phase_commit, "relied_on", _rely_on_own) + _on(witnesses, "relied_on", _rely_on_own),
        CAPTURED,
    ),
    "issuers-unchecked": Mutant(
        "a participant does not check an issuer that it does not keep",
        5,
        _on(two_phase_commit, "relied_on", _rely_on_homes_issuers) + _on(witnesses, "relied_on", _rely_on_homes_issuers),
        CAPTURED,
    ),
    "prepared-witnesses-believed": Mutant(
        "what came of checking the witnesses of a bundle is not looked at",
        5,
        _on(replica, "judge", _believe_all) + _on(proposing, "judge", _believe_all),
        CAPTURED,
    ),
    "bulkhead-off": Mutant("a shard takes in whatever another says it sends", 5, _on(bulkhead, "covers", _true), CAPTURED),
    "figures-ignored": Mutant("figures of others are not kept", 5, _on(bulkhead, "hear", _nothing), CAPTURED),
    "figures-untold": Mutant("a shard tells nobody its figures", 5, _on(bulkhead, "tell", _nothing), CAPTURED),
    "uncovered-forgotten": Mutant(
        "what was not covered at once is never looked at again", 5, _on(TwoPhaseCommit, "look_again", _nothing), CAPTURED
    ),
    "two-faced-home-unnoticed": Mutant(
        "nobody compares what a home shard told its participants", 1, _on(Decisions, "_compare", _nothing), CAPTURED
    ),
    "evidence-unproven": Mutant(
        "what a shard is said to have decided needs no proof", 1, _on(Decisions, "_taken", _take_unproven), CAPTURED
    ),
    "malformed-record-ends-a-follower": Mutant(
        "a block with something in it that cannot be read is no block", 1, _on(blocks, "prove_block", _read_all), CAPTURED
    ),
    "nonsense-ends-a-follower": Mutant(
        "a certified block that makes no sense is not followed", 1, _on(Follower, "_extend", _follow_sense), CAPTURED
    ),
    "malformed-record-stops-a-node": Mutant(
        "a participant takes whatever it is asked to prepare for a transaction",
        1,
        _on(TwoPhaseCommit, "_prepare", _prepare_transactions),
        CAPTURED,
    ),
    "kept-too-few": Mutant(
        "blocks that a member needs which is a little behind are not kept", 12, _on(Retention, "past", _keep_none), first=12
    ),
    "replayed-signatures": Mutant(
        "what a participant relied on counts again once it is decided",
        5,
        _on(TwoPhaseCommit, "_refusal", _answer_again),
        CAPTURED,
        first=2,
    ),
}
