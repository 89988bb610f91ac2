"""What a node and the coordinator load: memory and a start that every process of a network pays for."""

import subprocess
import sys

import pytest

from scripts.devnet.layout import ROOT

ELSEWHERE = {"libp2p", "multiaddr", "google", "redis", "fastapi", "pydantic", "sqlalchemy", "httpx", "gateway", "demo", "tests"}
"""Packages that other processes use, or tests."""


@pytest.mark.parametrize("module", ["node.__main__", "signaling.runtime"])
def test_a_process_loads_no_more_than_it_uses(module: str) -> None:
    told = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = set(subprocess.check_output([sys.executable, "-c", told], text=True, cwd=ROOT).split())
    assert {"trio", "noise", module.partition(".")[0]} <= loaded
    assert loaded & ELSEWHERE == set()
