"""The documented sum of all that others can make a node keep is the one its code has."""

import re

from node.bounds import bounds
from scripts.devnet.layout import ROOT

DEVNET = bounds(nodes=8, shards=2)
ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<mib>\d+) \|$", re.MULTILINE)


def test_the_table_in_the_threat_model_is_what_the_code_keeps() -> None:
    section = (ROOT / "docs" / "threat-model.md").read_text().split("## Bounds", 1)[1]
    told = {row["name"]: int(row["mib"]) for row in ROW.finditer(section)}
    assert told.pop("**all of it**") == round(sum(DEVNET.values()) / 2**20)
    assert told == {name: round(size / 2**20) for name, size in DEVNET.items()}


def test_what_peers_cost_grows_with_their_number_to_a_bound_and_nothing_else_does() -> None:
    assert bounds(nodes=4 * 1_000, shards=1_000)["unread bytes of peers"] < 9 * DEVNET["unread bytes of peers"]
    more = bounds(nodes=9, shards=3)
    assert {name for name in more if more[name] != DEVNET[name]} == {
        "unread bytes of peers",
        "frames that peers have not taken",
        "bundles of other shards",
    }
