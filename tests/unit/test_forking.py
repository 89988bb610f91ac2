"""Nodes that are forked from one process: found, told apart and ended like any other, with memory in common."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.devnet import folder as folders
from scripts.devnet import processes
from scripts.devnet.folder import DevnetState
from scripts.devnet.forking import can_fork
from scripts.devnet.layout import LOOPBACK, Devnet, Folder, Program
from scripts.devnet.processes import ProcessError
from tests.processes import free_port_base
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes are forked on Linux only")


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[Devnet]:
    folder = Folder(tmp_path)
    state = DevnetState(free_port_base(), "redis://127.0.0.1:1", LOOPBACK, True)
    devnet = folders.make_devnet(folder, state, 1, 4)
    folders.write_settings(folder, devnet.settings())
    yield devnet
    processes.stop(folder)


def nodes(devnet: Devnet) -> list[Program]:
    programs = devnet.programs(sys.executable, Path("broker"), folders.read_gateway_secrets(devnet.folder))
    return [program for program in programs if program.name in devnet.node_names]


def kib(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_they_are_found_by_name_share_most_of_their_memory_and_end_one_by_one(devnet: Devnet) -> None:
    folder, programs = devnet.folder, nodes(devnet)
    running, started = processes.start_missing(folder, programs)
    assert started == [program.name for program in programs]
    assert {name: r.pid for name, r in processes.programs_running(folder).items()} == {n: r.pid for n, r in running.items()}
    until(lambda: all("started" in program.log.read_text() for program in programs))
    for each in running.values():
        assert kib(each.pid, "Pss") < 0.6 * kib(each.pid, "Rss")

    first, second = programs[0].name, programs[1].name
    os.kill(running[first].pid, signal.SIGKILL)
    until(running[first].ended)
    assert first not in processes.programs_running(folder)
    again, started = processes.start_missing(folder, programs)
    assert started == [first]
    assert again[second].pid == running[second].pid
    assert processes.stop(folder, only=[second]) == [second]
    assert "stopping" in programs[1].log.read_text(), "it was asked, and ended in order"
    assert sorted(processes.stop(folder)) == sorted({program.name for program in programs} - {second})


def test_each_has_a_key_of_its_own(devnet: Devnet) -> None:
    programs = nodes(devnet)
    processes.start_missing(devnet.folder, programs)
    keys = [devnet.folder.home(program.name) / "key.pem" for program in programs]
    until(lambda: all(key.exists() for key in keys))
    assert len({key.read_bytes() for key in keys}) == len(keys)


def test_what_is_wrong_with_one_is_in_its_log_and_the_others_run(devnet: Devnet) -> None:
    good, bad = nodes(devnet)[:2]
    bad = replace(bad, argv=(*bad.argv[:-1], "nowhere.toml"))
    running, _ = processes.start_missing(devnet.folder, [good, bad])
    until(running[bad.name].ended)
    assert "nowhere.toml" in bad.log.read_text()
    assert running[good.name].ended() is None


def test_when_their_program_cannot_be_loaded_none_is_started_and_the_reason_told(devnet: Devnet, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "__init__.py").touch()
    (tmp_path / "node" / "__main__.py").write_text("raise ImportError('No module of that name')")
    elsewhere = [replace(program, cwd=tmp_path) for program in nodes(devnet)]
    with pytest.raises(ProcessError, match="No module"):
        processes.start_missing(devnet.folder, elsewhere)
    assert processes.programs_running(devnet.folder) == {}


def test_what_has_an_environment_or_an_interpreter_of_its_own_is_executed(devnet: Devnet) -> None:
    node = nodes(devnet)[0]
    assert can_fork(node)
    assert not can_fork(replace(node, environment=(("LD_PRELOAD", "libfaketime.so"),)))
    assert not can_fork(replace(node, argv=("ip", "netns", "exec", "host", *node.argv)))
    assert not can_fork(replace(node, argv=(sys.executable, "-m", "gateway", *node.argv[3:])))
