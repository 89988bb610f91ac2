"""Consensus under fire, and proof that the fire is hot: the same runs catch a core with one of its rules removed.

``python -m tests.simulation.test_committee --seeds N --first-seed S`` runs more seeds, and tells the story of one that fails.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from node.consensus.journal import ProposalRecord
from node.consensus.simplex import Simplex
from node.consensus.suspicion import Suspicion
from node.effects import Journal
from node.protocol.block import Header
from node.protocol.certificate import Certificate, Electorate, VoteKind
from node.protocol.messages import PeerMessage, Proposal
from tests.simulation.committee import Committee, CommitteePlan
from tests.simulation.story import describe
from tests.simulation.violation import ViolationError

SEEDS = 200


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_no_seed_breaks_agreement_or_keeps_a_healed_committee_from_moving(first: int) -> None:
    totals: Counter[str] = Counter()
    for seed in range(first, first + 50):
        committee = Committee(seed)
        try:
            committee.run_plan()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        totals += committee.counts
    assert totals["crashes"] > 50, "the runs are not calm"
    assert totals["by descendant"] > 50
    assert totals["adopted"] > 50


def test_a_seed_replays_exactly() -> None:
    def story(seed: int) -> tuple[dict[int, bytes], int, int]:
        committee = Committee(seed)
        committee.run_plan()
        return committee.chain, committee.time, committee.events

    assert story(7) == story(7)


@pytest.mark.parametrize("members", [1, 4, 5, 7])
def test_a_calm_committee_finalizes_a_block_per_view(members: int) -> None:
    committee = Committee(1, CommitteePlan(members=members, faulty_until=1_000))
    committee.run_plan(blocks=10)
    assert all(member.simplex is not None and member.simplex.view_timeouts == 0 for member in committee.members)
    first = committee.members[0].simplex
    assert first is not None
    assert first.tree.root.view == first.tree.root.height


class AsksNobody(Simplex[Header]):
    """Waits for transactions it lacks."""

    def lacks(self, proposal: Proposal, places: Sequence[int], now: int) -> None:
        return


def test_a_committee_in_which_nobody_has_heard_of_a_transaction_finalizes_a_block_per_view() -> None:
    plan = CommitteePlan(faulty_until=1_000, unheard=1.0)
    committee = Committee(1, plan)
    committee.run_plan(blocks=10)
    assert all(member.simplex is not None and member.simplex.view_timeouts == 0 for member in committee.members)
    with pytest.raises(ViolationError, match="stuck"):
        Committee(1, plan, AsksNobody).run_plan(blocks=10)


def test_a_silent_member_is_waited_for_hardly_ever() -> None:
    committee = Committee(3, CommitteePlan(faulty_until=10_000, liar="silent"))
    committee.run_plan()
    for member in committee.honest:
        assert member.simplex is not None
        assert member.simplex.view_timeouts <= 3, "before it is seen to be dead"
        assert member.height > 200


# -- progress from any state of suspicion ------------------------------------------------------------------------------------

BOUND = 4
"""Rounds of views within which a block is final, whoever suspects whom."""


def rounds_to_a_final_block(seed: int, members: int, liar: str, is_circle: bool) -> float:
    """Until an honest member has two new final blocks (one may have been under way), on a network that delivers, from a random
    state of suspicion; or from a circle: each honest member suspects the next one."""
    building = (50, 80) if is_circle else (1, 25)  # votes to nullify are faster than blocks
    committee = Committee(seed, CommitteePlan(members, 2_000, liar=liar, is_busy=True, building=building))
    committee.run(2_000)
    if is_circle and liar:  # else the leader of this view clears itself
        assert committee.run(
            20_000, lambda: all(m.simplex and m.simplex.view % members == committee.liar for m in committee.honest)
        )
    honest = [member.index for member in committee.honest]
    for number, member in enumerate(committee.honest):
        assert member.simplex is not None
        others = [leader for leader in range(members) if leader != member.index]
        few = committee.random.choice((committee.electorate.faults_tolerated, len(others)))
        suspects = [honest[(number + 1) % len(honest)]] if is_circle else committee.random.sample(others, few)
        member.simplex.suspicion.clear()
        for leader in suspects:
            for _ in range(9 if is_circle else committee.random.choice((1, 9))):
                member.simplex.suspicion.failed(leader)
                member.simplex.suspicion.heard(leader)
    committee.heal()
    height = max(committee.chain, default=0)
    first = max(member.simplex.view for member in committee.honest if member.simplex is not None)
    assert committee.run(committee.time + 600_000, lambda: max(committee.chain, default=0) > height + 1), f"stuck, seed {seed}"
    last = max(member.simplex.view for member in committee.honest if member.simplex is not None)
    return (last - first) / members


@pytest.mark.parametrize("is_circle", [False, True], ids=["random", "circle"])
@pytest.mark.parametrize("liar", ["", "silent", "mute", "slow", "withholds", "frames"])
@pytest.mark.parametrize("members", [4, 7])
def test_from_any_state_of_suspicion_a_block_is_final_within_some_rounds(members: int, liar: str, is_circle: bool) -> None:
    assert max(rounds_to_a_final_block(seed, members, liar, is_circle) for seed in range(4)) <= BOUND


def test_without_an_end_to_suspicion_a_liar_can_stop_a_committee_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """That each skips at most f does not help when each skips another one, and the liar joins them all."""
    monkeypatch.setattr(Suspicion, "clear", lambda self: None)
    assert max(rounds_to_a_final_block(seed, 4, "frames", is_circle=True) for seed in (10, 17)) > BOUND


# -- mutants -----------------------------------------------------------------------------------------------------------


class TwoFQuorum(Electorate, frozen=True):
    @property
    def quorum(self) -> int:
        return 2 * self.faults_tolerated or 1


class FinalizesWhatItNullified(Simplex[Header]):
    def _on_held(self, certificate: Certificate) -> None:
        own = self.views.read(certificate.view).own
        nullify = own.pop(VoteKind.NULLIFY, None) if certificate.kind is VoteKind.NOTARIZE else None
        super()._on_held(certificate)
        if nullify is not None:
            own[VoteKind.NULLIFY] = nullify


class NullifiesWhatItFinalized(Simplex[Header]):
    """Gives up the view before the current one too, whatever it voted there."""

    def tick(self, now: int) -> None:
        if now >= self.deadline and self.view - 1 > self.views.final:
            own = self.views.write(self.view - 1).own
            own.pop(VoteKind.FINALIZE, None)
            own.pop(VoteKind.NULLIFY, None)
            self._nullify(self.view - 1)
        super().tick(now)


class SendsBeforeItPersists(Simplex[Header]):
    def _nullify(self, view: int) -> bool:
        voted = super()._nullify(view)
        if voted:
            self._effects[-1], self._effects[-2] = self._effects[-2], self._effects[-1]
        return voted


class SendsFinalizeBeforeItPersists(Simplex[Header]):
    def _on_held(self, certificate: Certificate) -> None:
        first = len(self._effects)
        super()._on_held(certificate)
        if len(self._effects) > first and isinstance(effect := self._effects[first], Journal) and effect.slot == "finalize":
            self._effects[first], self._effects[first + 1] = self._effects[first + 1], effect


class ForgetsItsVotes(Simplex[Header]):
    def __init__(self, *arguments: Any) -> None:
        without: Any = [() if number == 5 else argument for number, argument in enumerate(arguments)]
        super().__init__(*without)


class StoresNamesOnly(Simplex[Header]):
    """What it stores with a vote says which transactions the block has, and does not hold them: others shall give them again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for record in arguments[5]:
            if isinstance(record, ProposalRecord):
                self.tree.discard(record.vote.block)


class BuildsOverGaps(Simplex[Header]):
    """Accepts any parent it knows a notarization for, whatever happened between."""

    def _take_justification(self, proposal: Proposal) -> bool:
        base = (proposal.notarization,) if proposal.notarization is not None else ()
        return all(map(self._on_certificate, base + proposal.nullifications))

    def _is_justified(self, header: Header) -> bool:
        notarizations = (known.certificate(VoteKind.NOTARIZE) for known in self.views.rounds.values())
        return header.parent == self.tree.root_hash or any(n is not None and n.block == header.parent for n in notarizations)


class VotesForEveryProposal(Simplex[Header]):
    def _vote_for_proposal(self) -> None:
        super()._vote_for_proposal()
        known = self.views.read(self.view)
        twice: set[int] = self.__dict__.setdefault("twice", set())
        if not self._effects and len(self._proposals) == 2 and VoteKind.NOTARIZE in known.own and self.view not in twice:
            twice.add(self.view)
            self._proposals.reverse()
            del known.own[VoteKind.NOTARIZE]
            super()._vote_for_proposal()


class NeverRepeats(Simplex[Header]):
    def _retransmit(self) -> None:
        return


@pytest.mark.parametrize(
    ("mutant", "story", "seeds"),
    [
        (TwoFQuorum, "no proof", range(5)),
        (FinalizesWhatItNullified, "double vote", range(5)),
        (NullifiesWhatItFinalized, "double vote", range(5)),
        (SendsBeforeItPersists, "not on its disk", range(5)),
        (SendsFinalizeBeforeItPersists, "not on its disk", range(5)),
        (ForgetsItsVotes, "double vote", range(1, 10)),
        (StoresNamesOnly, "stuck", range(38, 39)),
        (BuildsOverGaps, "two final blocks|does not execute|does not build on", range(74, 75)),
        (VotesForEveryProposal, "double vote", range(40)),
        (NeverRepeats, "stuck", range(15, 23)),
    ],
)
def test_a_core_with_a_rule_removed_is_caught(mutant: type[Simplex[Header]] | type[Electorate], story: str, seeds: range) -> None:
    def run_all() -> None:
        for seed in seeds:
            if issubclass(mutant, Electorate):
                Committee(seed, electorate=mutant).run_plan()
            else:
                Committee(seed, simplex=mutant).run_plan()

    with pytest.raises(ViolationError, match=story):
        run_all()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the committee simulation over many seeds.")
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    totals: Counter[str] = Counter()
    begun = time.monotonic()
    for done in range(options.seeds):
        seed = options.first_seed + done
        committee = Committee(seed)
        try:
            committee.run_plan()
        except Exception as error:
            for event in committee.story:
                print(*(describe(part) if isinstance(part, PeerMessage) else part for part in event))
            print(f"seed {seed}: {type(error).__name__}: {error}\n{committee.plan}, liar {committee.liar}")
            sys.exit(1)
        totals += committee.counts
        totals["blocks"] += len(committee.chain)
        if (done + 1) % 100 == 0:
            print(f"{done + 1} seeds, {time.monotonic() - begun:.0f} s, {dict(totals)}", flush=True)


if __name__ == "__main__":
    main()
