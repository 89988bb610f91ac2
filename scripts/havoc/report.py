"""A run for a person: the bar while it lasts, and at the end what was done and what it proved."""

from collections.abc import Mapping
from typing import Any

BAR_WIDTH = 24


def bar(done: float) -> str:
    """``done``: 0 to 1."""
    filled = round(done * BAR_WIDTH)
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}] {done:4.0%}"


def clock(seconds: float) -> str:
    """``1:07``"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def table(result: Mapping[str, Any]) -> str:
    """The result of a run."""
    lines = ["", f"What was done (seed {result['seed']}):"]
    for episode in result["episodes"]:
        recovered = episode["recovered_after"]
        after = "NOT RECOVERED" if recovered is None else f"recovered after {recovered} s"
        did = episode["did"] or ["(nothing)"]
        lines.append(f"  {clock(episode['at'] - result['began']):>5}  {did[0]}")
        lines += [f"         {more}" for more in did[1:]]
        lines += [f"           {told}" for told in episode["said"]]
        lines.append(f"         {after}; payments paused for at most {episode['payments_paused']} s")
    lines += [f"  skipped: {what}: {why}" for what, why in result["skipped"].items()]
    lines += [f"  note: {note}" for note in result["notes"]]
    payments, balances, audit = result["payments"], result["balances"], result["audit"]
    lines += [
        "",
        f"What is left after {result['minutes']} minutes:",
        f"  payments   {payments['taken']} taken in: {payments['committed']} committed, {payments['rejected']} rejected, "
        f"{payments['expired']} expired; {payments['lost']} lost, {payments['not_final']} undecided, "
        f"{payments['unknown_or_twice']} doubled",
        f"             reasons: {', '.join(f'{code} {count}' for code, count in payments['reasons'].items()) or 'none'}",
        f"             {payments['requests_repeated_without_answer']} requests repeated for want of an answer, "
        f"{payments['keys_repeated']} on purpose",
        f"  pause      at most {result['longest_pause']} s without a committed payment from some shard",
        f"  balances   {balances['wallets']} wallets right at the gateway and in {balances['answers_of_nodes']} answers of nodes"
        if result["passed"]
        else f"  balances   {balances['wallets']} wallets compared, with {balances['answers_of_nodes']} answers of nodes",
        f"  audit      {'; '.join(_audited(audit)) or 'not possible'}",
        *(
            f"  state      shard {shard} of epoch {s['epoch']} at {s['height']}: {s['root'][:32]} in all its nodes"
            for shard, s in result["states"].items()
        ),
        f"             {result['states_compared']} states compared at equal height during the run",
        *_epochs(result["epochs"]),
        "",
    ]
    if result["passed"]:
        return "\n".join([*lines, "Nothing lost, nothing doubled, nothing stuck; every node has the same state."])
    return "\n".join([*lines, "VIOLATIONS:", *(f"  {violation}" for violation in result["violations"])])


def _epochs(epochs: Mapping[str, Any]) -> list[str]:
    """Nothing to say where there was only one."""
    if not epochs:
        return []
    kills = ", ".join(f"{phase} {count}" for phase, count in epochs["coordinator_killed_in"].items())
    return [
        f"  epochs     {epochs['epochs']}: {epochs['splits']} splits, {epochs['merges']} merges, {epochs['moves']} moves, "
        f"{epochs['newcomers']} seats for newcomers; {epochs['called_off']} attempts called off",
        f"             {epochs['joined']} nodes joined, {epochs['left']} left; the coordinator was killed in {kills}",
    ]


def _audited(audit: Mapping[str, Any]) -> list[str]:
    return [
        f"{asset} {values['available']} available + {values['held']} held + {values['in_flight']} in flight = "
        f"{values['issued']} issued{'' if values['conserved'] else ': NOT CONSERVED'}"
        for asset, values in audit.get("assets", {}).items()
    ]
