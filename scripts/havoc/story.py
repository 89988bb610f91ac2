"""How the epochs of a run followed one another, as their documents tell it. Pure."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from node.protocol.epoch import EpochDocument


def story(documents: Sequence[EpochDocument], attempt: int) -> dict[str, int]:
    """``documents``: from the first. ``attempt``: the one that is under way.

    Returns:
        Epochs, and what happened between them: splits, merges, moves (a member of both sits in a shard that does not come from
        its own), newcomers among the members, and attempts called off, those of the epoch that is not there yet included.
    """
    told = Counter({"epochs": len(documents), "splits": 0, "merges": 0, "moves": 0, "newcomers": 0})
    told["called_off"] = attempt - 1 + sum(document.attempt - 1 for document in documents[1:])
    for before, after in pairwise(documents):
        parents = [parent for origins in after.origins for parent in origins]
        told["splits"] += sum(parents.count(parent) > 1 for parent in set(parents))
        told["merges"] += sum(len(origins) > 1 for origins in after.origins)
        for committee in after.committees:
            for member in committee.members:
                seat = before.seat_of(member.public_key)
                told["newcomers"] += seat is None
                told["moves"] += seat is not None and seat[0] not in after.origins_of(committee.shard)
    return dict(told)
