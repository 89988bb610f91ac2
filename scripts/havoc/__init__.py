"""``scripts/chaos``: faults on a live network under load, and the proof that no money was lost or doubled."""
