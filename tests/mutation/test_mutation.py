"""The command that plants faults: it finds them, plants them where they are, and knows who noticed."""

from tests.mutation.planting import Fault, changes_in, faults_in, is_python
from tests.mutation.running import ROOT, Ground, Verdict, copy_of
from tests.mutation.telling import EQUIVALENT, described, equivalents, survivors, table

SOURCE = b'''"""Not this 1 == 2."""

LIMIT = 3


def positive(amount: int, names: list[str]) -> bool:
    """Nor this."""
    if amount < 1:
        raise ValueError(f"{amount} is less than 1")
    names.append(join(LIMIT, amount))
    return amount > 0 and not names
'''


def changes(source: bytes) -> set[tuple[str, str]]:
    """Kind of each fault, and the line that comes."""
    return {(fault.kind, fault.after[0]) for fault in faults_in("a.py", source)}


def test_each_kind_of_fault_is_found_and_what_changes_no_behaviour_is_left_alone() -> None:
    assert changes(SOURCE) == {
        ("constant changed", "LIMIT = 4"),
        ("constant changed", "LIMIT = 2"),
        ("comparison changed", "if amount <= 1:"),
        ("comparison changed", "if amount >= 1:"),
        ("constant changed", "if amount < 2:"),
        ("check removed", "if (amount < 1) and False:"),
        ("statement dropped", "pass"),
        ("arguments swapped", "names.append(join(amount, LIMIT))"),
        ("comparison changed", "return amount >= 0 and not names"),
        ("comparison changed", "return amount <= 0 and not names"),
        ("constant changed", "return amount > 1 and not names"),
        ("check removed", "return True and not names"),
        ("check removed", "return amount > 0 and True"),
        ("boolean negated", "return amount > 0 and bool(names)"),
        ("return changed", "return True"),
        ("return changed", "return False"),
    }


def fault(path: str, line: str) -> Fault:
    """The one that makes this line."""
    source = (ROOT / path).read_bytes()
    return next(found for found in faults_in(path, source) if found.after == (line,))


QUORUM = fault("node/protocol/certificate.py", "return len(self.keys) + self.faults_tolerated")
ZEROS = 'sign, digits = "-" if value < 0 else "", str(abs(value)).rjust(decimals - 1, "0")'
FIGURE = fault("node/protocol/amounts.py", ZEROS)
TESTS = "tests/unit/test_protocol_primitives.py"


def test_who_notices_a_fault_is_known_and_it_is_gone_afterwards() -> None:
    """A few known ones, with few runs."""
    normal, runs = {"committee": 5.0, "network": 5.0, TESTS: 5.0}, {"committee": 2, "network": 2}
    with copy_of(ROOT) as folder:
        tested = Ground(folder, {TESTS: {(FIGURE.path, FIGURE.defined)}}, normal, runs)
        results = [tested.judge(QUORUM), tested.judge(FIGURE), Ground(folder, {}, normal, runs).judge(FIGURE)]
        for path in (QUORUM.path, FIGURE.path):
            assert (folder / path).read_bytes() == (ROOT / path).read_bytes()
    assert [result.verdict for result in results] == [Verdict.SIMULATOR, Verdict.TESTS, Verdict.SURVIVED]
    assert "67% caught, 33% by the simulator alone" in table(results)
    assert "format_amount" in survivors(results)


def test_a_listed_fault_is_known_by_its_text_and_each_listed_one_can_still_be_planted() -> None:
    described_ = described(FIGURE)
    assert equivalents(f"# a comment\n\n{described_}\nnobody has so many decimals\n") == {
        described_: "nobody has so many decimals"
    }
    listed = equivalents(EQUIVALENT.read_text()).keys()
    sources = {path: (ROOT / path).read_bytes() for path in {text.partition(" ")[0] for text in listed}}
    known = {described(change): change for path, source in sources.items() for change in changes_in(path, source)}
    gone = {text for text in listed if text not in known or not is_python(known[text], sources[known[text].path])}
    assert not gone, "what was listed is no longer in the code: take it out of the list"
