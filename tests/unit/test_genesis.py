"""A genesis with values that cannot work is refused when it is read, and says which."""

from pathlib import Path

import msgspec
import pytest

from node.protocol.genesis import Parameters, read_genesis, write_genesis
from tests.chains import Network

GENESIS = Network().genesis


@pytest.mark.parametrize(
    ("still", "too_much", "rule"),
    [
        ({"block_difficulty_bits": 16}, {"block_difficulty_bits": 17}, "quarter of view_timeout"),
        ({"view_timeout": 1_311, "block_difficulty_bits": 16}, {"view_timeout": 1_310, "block_difficulty_bits": 16}, "quarter"),
        ({"puzzle_difficulty_bits": 29}, {"puzzle_difficulty_bits": 30}, "within an hour"),
        ({"block_interval": 250}, {"block_interval": 251}, "an eighth of view_timeout"),
        ({"heartbeat": 50}, {"heartbeat": 49}, "at most heartbeat and"),
        ({"commit_timeout": 3_000}, {"commit_timeout": 2_999}, "commit_timeout is at least a view"),
        ({"validity_window": 5_000}, {"validity_window": 4_999}, "clock_skew"),
        ({"validity_window": 3_000, "clock_skew": 1}, {"validity_window": 2_999, "clock_skew": 1}, "validity_window is at least"),
        ({"validity_window": 671_088}, {"validity_window": 671_089}, "at most 26843545: ids"),
        ({"block_interval": 45}, {"block_interval": 44}, "40 bytes each"),
        ({"block_transactions": 2_236}, {"block_transactions": 2_237}, "kept in memory"),
        ({"checkpoint_interval": 10_000}, {"checkpoint_interval": 10_001}, "checkpoint_interval"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path: Path, still: dict[str, int], too_much: dict[str, int], rule: str) -> None:
    file = tmp_path / "genesis.json"
    written = msgspec.to_builtins(GENESIS)
    for parameters, works in ((still, True), (too_much, False)):
        file.write_bytes(msgspec.json.encode(written | {"parameters": parameters}))
        if works:
            assert read_genesis(file).parameters == Parameters(**parameters)
        else:
            with pytest.raises(ValueError, match=rule) as refused:
                read_genesis(file)
            assert str(file) in str(refused.value)


def test_the_replay_set_of_the_defaults_fits_the_memory_that_is_said() -> None:
    assert Parameters().most_replayable == 24_000_000


def test_a_genesis_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_genesis(tmp_path / "genesis.json", GENESIS)
    assert read_genesis(tmp_path / "genesis.json") == GENESIS
