"""Chains: each shard of each epoch has one of its own, kept by the committee that the epoch's document names."""

from typing import NamedTuple


class Chain(NamedTuple):
    """``epoch``: from 1. ``shard``: as in that epoch's document."""

    epoch: int
    shard: int

    @property
    def number(self) -> int:
        """Both in 8 bytes: no two chains have the same."""
        return self.epoch << 10 | self.shard
