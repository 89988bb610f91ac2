"""The behaviours of liars, by name; and which of them others can tell by what they send."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.adversary import Adversary, Behaviour, Reaction
from tests.simulation.lies_about_bundles import (
    claim_bundles,
    deliver_late,
    deliver_to_liars,
    forge_bundles,
    hoard_bundles,
    name_bundles_only,
    name_what_nobody_has,
    withhold_bundles,
)
from tests.simulation.lies_about_the_past import (
    boast,
    boast_in_silence,
    hand_over_false_parts,
    hand_over_nothing,
    mislead_who_is_behind,
    offer_an_old_checkpoint,
    offer_another_checkpoint,
    serve_forged_finality,
)
from tests.simulation.lies_in_views import (
    agree_with,
    equivocate,
    flatter,
    flood,
    forge_certificates,
    give_other_transactions,
    keep_silent,
    live_by_another_document,
    never_propose,
    nullify_everything,
    propose_late,
    propose_nonsense,
    propose_out_of_turn,
    repeat_old_messages,
    select,
    sign_badly,
    swap_bodies,
    vote_for_everything,
    vote_twice,
    withhold_from_the_next,
    withhold_transactions,
)
from tests.simulation.twin import bring_what_was_signed_there, serve_blocks_of_there

if TYPE_CHECKING:
    from tests.simulation.host import Host

BEHAVIOURS: dict[str, Behaviour] = {
    "equivocating proposer": equivocate,
    "double voter": vote_twice,
    "voter for everything": vote_for_everything,
    "two-faced voter": flatter,
    "silent": keep_silent,
    "selective sender": select,
    "invalid blocks": propose_nonsense,
    "swapped bodies": swap_bodies,
    "withheld transactions": withhold_transactions,
    "other transactions": give_other_transactions,
    "withheld bundles": withhold_bundles,
    "late bundles": deliver_late,
    "claimed bundles": claim_bundles,
    "hoarded bundles": hoard_bundles,
    "bundles to liars": deliver_to_liars,
    "bundles only named": name_bundles_only,
    "names of nothing": name_what_nobody_has,
    "mute leader": never_propose,
    "slow leader": propose_late,
    "withheld from the next": withhold_from_the_next,
    "nullifies everything": nullify_everything,
    "forged certificates": forge_certificates,
    "forged bundles": forge_bundles,
    "another document": live_by_another_document,
    "replayed messages": repeat_old_messages,
    "misleading catch-up": mislead_who_is_behind,
    "forged finality": boast,
    "out of turn": propose_out_of_turn,
    "bad signatures": sign_badly,
    "flood": flood,
    "silent boaster": boast_in_silence,
    "twin network": bring_what_was_signed_there,
    "false parts": hand_over_false_parts,
    "withheld parts": hand_over_nothing,
    "old checkpoint": offer_an_old_checkpoint,
    "another checkpoint": offer_another_checkpoint,
}


HANDOFF_LIES = {
    "false parts": "it sent a part that is another",
    "another checkpoint": "it sent a checkpoint that does not prove itself",
}
"""Why those are dropped that hand over something else, once somebody asks."""


DROPPED_FOR = {
    "bad signatures": "it sent a vote it did not sign",
    "another document": "it sent a vote it did not sign",
    "forged certificates": "it sent a certificate that is not valid",
    "twin network": "it sent a certificate that is not valid",
    "forged bundles": "it sent a bundle that does not prove itself",
    "other transactions": "it sent other transactions than it proposed",
    "swapped bodies": "it sent a proposal with another payload than it says",
    "out of turn": "it sent a proposal that is not the leader's",
}
"""Why liars that can be told from others by what they send are dropped."""


REACTIONS: dict[str, Reaction] = {
    "two-faced voter": agree_with,
    "forged finality": serve_forged_finality,
    "twin network": serve_blocks_of_there,
}


def lying(node: "Host", behaviours: Sequence[str]) -> Adversary:
    """A member that does all of these."""
    reactions = [REACTIONS[name] for name in behaviours if name in REACTIONS]
    return Adversary(node, [BEHAVIOURS[name] for name in behaviours], reactions)
