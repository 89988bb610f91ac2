"""Nodes that are forked from one process: found, told apart and ended like any other, with memory in common."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.devnet import folder as folders
from scripts.devnet import processes
from scripts.devnet.folder import DevnetState
from scripts.devnet.forking import can_fork
from scripts.devnet.layout import LOOPBACK, ROOT, Devnet, Folder, Program
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


def test_when_forking_does_not_work_each_is_executed_and_says_itself_what_is_wrong(devnet: Devnet, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "__init__.py").touch()
    (tmp_path / "node" / "__main__.py").write_text("raise ImportError('not today')")
    elsewhere = [replace(program, cwd=tmp_path) for program in nodes(devnet)]
    running, _ = processes.start_missing(devnet.folder, elsewhere)
    until(lambda: all(each.ended() == "ended with exit code 1" for each in running.values()))
    assert all("not today" in program.log.read_text() for program in elsewhere)
    assert processes.marked(devnet.folder) == []


def test_titles_are_whole_where_there_is_hardly_an_environment(devnet: Devnet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name != "PYTHONPATH":
            monkeypatch.delenv(name)
    running, _ = processes.start_missing(devnet.folder, nodes(devnet))
    assert processes.programs_running(devnet.folder).keys() == running.keys()
    titles = [Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in running.values()]
    assert all(title.startswith(b"shardpay ") for title in titles)


def test_whose_starter_was_killed_while_they_were_loaded_do_not_appear_later(devnet: Devnet) -> None:
    code = """
import sys
from pathlib import Path
from scripts.devnet import folder, processes
from scripts.devnet.layout import Folder
devnet = folder.open_devnet(Folder(Path(sys.argv[1])))
programs = devnet.programs(sys.executable, Path("broker"), folder.read_gateway_secrets(devnet.folder))
processes.start_missing(devnet.folder, [program for program in programs if program.name in devnet.node_names])
"""
    with subprocess.Popen([sys.executable, "-c", code, str(devnet.folder.data)], cwd=ROOT) as starter:
        until(lambda: processes.marked(devnet.folder))
        starter.kill()
    (name, forking), *others = processes.marked(devnet.folder)
    assert (name, others) == ("forking", [])
    until(lambda: not processes.is_alive(forking))
    assert processes.marked(devnet.folder) == []


def test_what_has_an_environment_or_an_interpreter_of_its_own_is_executed(devnet: Devnet) -> None:
    node = nodes(devnet)[0]
    assert can_fork(node)
    assert not can_fork(replace(node, environment=(("LD_PRELOAD", "libfaketime.so"),)))
    assert not can_fork(replace(node, argv=("ip", "netns", "exec", "host", *node.argv)))
    assert not can_fork(replace(node, argv=(sys.executable, "-m", "gateway", *node.argv[3:])))
