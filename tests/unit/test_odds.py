"""The odds of committees: against counting every draw, and against the table in the documents."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from scripts.committee_odds import committee_fails, epoch_fails, main, shown, smallest_size

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/committee-size.md").read_text()


@pytest.mark.parametrize(("nodes", "bad", "size"), [(9, 3, 4), (10, 4, 7), (8, 8, 4), (8, 0, 4), (7, 3, 7)])
def test_the_chance_of_a_committee_is_that_of_counting_all_draws(nodes: int, bad: int, size: int) -> None:
    draws = list(combinations(range(nodes), size))
    too_many = sum(sum(member < bad for member in draw) > (size - 1) // 3 for draw in draws)
    assert committee_fails(nodes, bad, size) == pytest.approx(too_many / len(draws))


def test_an_epoch_has_the_chances_of_its_committees_together_and_never_more_than_certainty() -> None:
    assert epoch_fails(4000, 200, 31) == pytest.approx(129 * committee_fails(4000, 200, 31))
    assert epoch_fails(4000, 2000, 4) == 1


def test_the_smallest_size_keeps_the_target_and_the_next_smaller_does_not() -> None:
    size = smallest_size(4000, 400, 1e-6)
    assert size is not None
    assert epoch_fails(4000, 400, size) <= 1e-6 < epoch_fails(4000, 400, size - 3)
    assert smallest_size(100, 60, 1e-6) is None


def test_the_table_of_the_documents_is_what_the_command_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "4000"]) == 0
    counted = capsys.readouterr().out.splitlines()
    first, _, _ = DOCUMENT.partition("\nSo:\n")
    rows = [line for line in first.splitlines() if re.match(r"\| (members|\d)", line)]
    assert len(rows) == 8
    assert all(row in counted for row in rows)
    assert f"{smallest_size(4000, 400, 1e-6)} members" in DOCUMENT
    assert f"with a fifth {smallest_size(4000, 800, 1e-6)}" in DOCUMENT


def test_a_chance_is_never_shown_as_nothing_unless_it_is() -> None:
    assert (shown(0.0), shown(3e-300), shown(0.5)) == ("0", "3e-300", "0.5")


@pytest.mark.parametrize("wrong", [["--nodes", "3"], ["--bad", "1.5"], ["--size", "0"], ["--target", "0"]])
def test_what_makes_no_sense_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
