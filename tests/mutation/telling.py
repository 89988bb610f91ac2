"""What became of the faults: a line each while they are tried, then a table, the diff of each survivor, and JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.planting import Fault
from tests.mutation.running import Result, Verdict

EQUIVALENT = Path(__file__).with_name("equivalent.txt")
_SHOWN = (Verdict.SIMULATOR, Verdict.TESTS, Verdict.SURVIVED)


def equivalents(text: str) -> dict[str, str]:
    """The faults that a person found to change nothing, with the reason. ``text``: entries as ``described`` writes them, apart
    by empty lines, each with its reason as the last line; # begins a comment."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    entries = [entry.splitlines() for entry in "\n".join(lines).split("\n\n") if entry.strip()]
    return {"\n".join(line for line in entry[:-1] if line): entry[-1].strip() for entry in entries}


def described(fault: Fault) -> str:
    """Where a fault is and what it changes, without line numbers: those move."""
    lines = [*(f"- {line}" for line in fault.before), *(f"+ {line}" for line in fault.after)]
    return "\n".join([f"{fault.path} {fault.place}".strip(), *lines])


def progress(done: int, of: int, result: Result) -> str:
    """One line."""
    where = f"{result.fault.path}:{result.fault.line}"
    return f"[{done}/{of}] {result.verdict.value}, {result.seconds:.0f} s: {where} {result.fault.kind}  {result.by}".rstrip()


def table(results: Sequence[Result]) -> str:
    """Counts by folder and kind of fault, and the shares caught."""
    lines = [f"{'':<28}{'planted':>9}{'simulator':>11}{'tests':>7}{'survived':>10}"]
    counted = [result for result in results if result.verdict is not Verdict.BROKEN]
    groups: dict[str, list[Result]] = {}
    for result in counted:
        groups.setdefault(str(Path(result.fault.path).parent), []).append(result)
    for result in counted:
        groups.setdefault(result.fault.kind, []).append(result)
    for name, group in [*sorted(groups.items(), key=lambda item: ("/" not in item[0], item[0])), ("all", counted)]:
        of = Counter(result.verdict for result in group)
        lines.append(f"{name:<28}{len(group):>9}{of[_SHOWN[0]]:>11}{of[_SHOWN[1]]:>7}{of[_SHOWN[2]]:>10}")
    of, total = Counter(result.verdict for result in counted), len(counted) or 1
    caught = of[Verdict.SIMULATOR] + of[Verdict.TESTS]
    lines.append(f"\n{caught / total:.0%} caught, {of[Verdict.SIMULATOR] / total:.0%} by the simulator alone")
    if broken := len(results) - len(counted):
        lines.append(f"{broken} more did not start and are not counted")
    return "\n".join(lines)


def survivors(results: Sequence[Result]) -> str:
    """Their diffs."""
    lines = []
    for result in results:
        if result.verdict is Verdict.SURVIVED:
            lines += ["", f"{result.fault.path}:{result.fault.line} {result.fault.kind}"]
            lines += [f"  {line}" for line in described(result.fault).splitlines()]
    return "\n".join(lines)


def as_json(results: Sequence[Result]) -> str:
    """All of it, for programs."""
    rows = []
    for result in results:
        fault = result.fault
        row = {"path": fault.path, "line": fault.line, "place": fault.place, "kind": fault.kind}
        row |= {"before": fault.before, "after": fault.after}
        rows.append(row | {"verdict": result.verdict.value, "by": result.by, "seconds": round(result.seconds, 1)})
    return json.dumps(rows, indent=1)
