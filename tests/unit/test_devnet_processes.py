"""Starting, finding, restarting and ending processes, with small stand-ins for the real ones."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import NodeSettings
from node.leaving import is_leaving, note_left
from scripts.devnet import folder as folders
from scripts.devnet import leave, processes, session, up
from scripts.devnet.folder import DevnetState
from scripts.devnet.layout import ROOT, Folder, Program
from scripts.devnet.processes import ProcessError
from scripts.devnet.supervisor import Supervisor
from tests.waiting import until

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('grandchild', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(600)
"""
SUPERVISING = """
import sys
from pathlib import Path
from config.settings import NodeSettings
from node.leaving import is_leaving
from scripts.devnet import folder as folders
from scripts.devnet import leave, processes, session
from scripts.devnet.layout import Folder, Program
from scripts.devnet.supervisor import Supervisor
folder, stop = Folder(Path(sys.argv[1])), session.stop_signal()
programs = [Program(n, (sys.executable, "-c", sys.argv[2]), folder.log(n)) for n in ("node-0", "node-1")]
with processes.changing(folder):
    running, _ = processes.start_missing(folder, programs)
with processes.supervising(folder) as mine:
    assert mine
    session.supervise(folder, Supervisor(folder, programs, running), session.Screen(), stop, lambda: "fine")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    session.down(folder)
    processes.stop(folder)


def program(folder: Folder, name: str, code: str = SLEEPER, *ports: int) -> Program:
    return Program(name, (sys.executable, "-c", code), folder.log(name), ports)


def said(folder: Folder, name: str, text: str) -> Callable[[], bool]:
    return lambda: folder.log(name).exists() and text in folder.log(name).read_text()


def lines_of(supervisor: Supervisor, count: int) -> list[str]:
    lines: list[str] = []

    def enough() -> bool:
        lines.extend(supervisor.tick())
        return len(lines) >= count

    until(enough)
    return lines


def test_only_what_is_missing_in_this_folder_is_started_and_what_dies_is_started_again(folder: Folder, tmp_path: Path) -> None:
    programs = [program(folder, "a"), program(folder, "b")]
    first, started = processes.start_missing(folder, programs[:1])
    assert started == ["a"]
    both, started = processes.start_missing(folder, programs)
    assert started == ["b"]
    assert both["a"].pid == first["a"].pid
    other = Folder(tmp_path / "other")
    assert (processes.programs_running(other), processes.stop(other)) == ({}, [])

    until(said(folder, "a", "up"))
    supervisor, dead, found = Supervisor(folder, programs, both), both["b"].pid, both["a"].pid
    for name, pid, how in (("b", dead, "b was killed by SIGKILL"), ("a", found, "a ended")):
        os.kill(pid, signal.SIGKILL)
        lines = lines_of(supervisor, 2)
        assert how in lines[0]
        assert f"{name} started again" in lines[1]
        if name == "b":
            assert processes.programs_running(folder)["a"].pid == found
    assert ": up" in lines[0], "the log's last line belongs to the message"
    assert {dead, found}.isdisjoint(running.pid for running in processes.programs_running(folder).values())


def test_what_another_script_started_is_looked_after_once_it_is_taken_on(folder: Folder) -> None:
    programs = [program(folder, "a"), program(folder, "b")]
    first, _ = processes.start_missing(folder, programs[:1])
    supervisor = Supervisor(folder, programs[:1], first)
    joined, _ = processes.start_missing(folder, programs)
    supervisor.take_on(programs)
    assert lines_of(supervisor, 1) == [f"b runs, and is looked after, too (process {joined['b'].pid})"]
    os.kill(joined["b"].pid, signal.SIGKILL)
    assert "b started again" in lines_of(supervisor, 2)[1]
    assert processes.programs_running(folder)["a"].pid == first["a"].pid


def test_up_finds_the_nodes_that_launch_has_added(folder: Folder) -> None:
    devnet = folders.make_devnet(folder, DevnetState(24_000), 1, 4)
    assert up.joined(folder, devnet.node_names) == []
    more = folders.add_nodes(folder, 2)
    assert [one.name for one in up.joined(folder, devnet.node_names)] == ["node-4", "node-5"]
    folder.home("node-5").mkdir(parents=True)
    note_left(folder.home("node-5"))
    assert [one.name for one in up.joined(folder, devnet.node_names)] == ["node-4"]
    assert up.joined(folder, more.node_names) == []


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(folder: Folder) -> None:
    programs = [program(folder, "a", "import sys; sys.exit('bad settings')")]
    running, _ = processes.start_missing(folder, programs)
    lines = lines_of(Supervisor(folder, programs, running), 3)
    assert "ended with exit code 1; starting it again in 0.5 s" in lines[0]
    assert "bad settings" in lines[0]
    assert "in 1 s" in lines[2]


def test_everything_ends_within_seconds_even_who_ignores_sigterm_and_whose_parent_is_gone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = [program(folder, "stubborn", STUBBORN), program(folder, "willing")]
    running, _ = processes.start_missing(folder, programs)
    until(said(folder, "stubborn", "grandchild"))
    assert len(processes.marked(folder)) == 3
    with monkeypatch.context() as patience:
        patience.setattr(processes, "TERM_SECONDS", 60.0)
        began = time.monotonic()
        assert processes.stop(folder, only=["willing"]) == ["willing"]
        assert time.monotonic() - began < 30, "who is not asked to end is not waited for"

    os.kill(running["stubborn"].pid, signal.SIGKILL)
    until(running["stubborn"].ended)
    assert processes.programs_running(folder) == {}
    ((_, orphan),) = processes.marked(folder)
    again, started = processes.start_missing(folder, programs[:1])
    assert started == ["stubborn"]
    until(lambda: not processes.is_alive(orphan))
    assert again["stubborn"].ended() is None

    until(said(folder, "stubborn", "grandchild\ngrandchild"))
    began = time.monotonic()
    assert processes.stop(folder) == ["stubborn"]
    assert time.monotonic() - began < processes.TERM_SECONDS + 12, "the grace, and what a busy machine needs"
    assert processes.marked(folder) == []


def test_there_is_one_supervisor_and_a_stale_record_naming_somebody_elses_process_does_no_harm(folder: Folder) -> None:
    with processes.supervising(folder) as first, processes.supervising(folder) as second:
        assert (first, second) == (True, False)
        assert processes.supervisor(folder) == os.getpid()
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL, start_new_session=True) as innocent:
        try:
            for name in ("supervisor", "node-0.pid"):
                (folder.run / name).write_text(str(innocent.pid))
            assert processes.supervisor(folder) is None
            assert "Nothing ran" in session.down(folder)
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_what_cannot_start_is_named_and_the_rest_is_not_left_behind(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for bad, why in (
            (program(folder, "b", SLEEPER, port), f"b: port {port} is taken"),
            (Program("b", ("/nonexistent/program",), folder.log("b")), "cannot start b"),
        ):
            with pytest.raises(ProcessError, match=why):
                processes.start_missing(folder, [program(folder, "a"), bad])
            assert processes.marked(folder) == []


def test_a_large_log_begins_anew_and_the_old_one_is_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 100)
    log = folder.log("a")
    log.parent.mkdir()
    log.write_text("x" * 101)
    processes.bound_log(log)
    assert (log.read_text(), log.with_name("a.log.1").read_text()) == ("", "x" * 101)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """The file-size limit stands for it: beyond it every write fails, as on a full one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_large_log_without_room_for_a_copy_stays_and_is_begun_anew_when_there_is_some(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 100)
    log = folder.log("a")
    log.parent.mkdir()
    log.with_name("a.log.1").write_text("older")
    log.write_bytes(bytes(1 << 20))
    with full_disk(1 << 19):
        processes.bound_log(log)
    assert [(path.name, path.stat().st_size) for path in log.parent.iterdir()] == [("a.log", 1 << 20)], "and no half copy"
    processes.bound_log(log)
    assert (log.stat().st_size, log.with_name("a.log.1").stat().st_size) == (0, 1 << 20)


def supervising(folder: Folder, code: str = SLEEPER) -> "subprocess.Popen[bytes]":
    script = subprocess.Popen([sys.executable, "-c", SUPERVISING, str(folder.data), code], cwd=ROOT, stdout=subprocess.DEVNULL)
    until(lambda: processes.supervisor(folder) == script.pid)
    return script


def test_ctrl_c_ends_the_supervisor_and_all_it_runs(folder: Folder) -> None:
    script = supervising(folder, STUBBORN)
    until(said(folder, "node-1", "grandchild"))
    script.send_signal(signal.SIGINT)
    assert script.wait(30) == 0
    assert processes.marked(folder) == []


def test_down_finds_what_a_killed_supervisor_left_and_else_ends_it_first_so_that_nothing_comes_back(folder: Folder) -> None:
    script = supervising(folder)
    script.kill()
    script.wait()
    assert processes.supervisor(folder) is None
    assert len(processes.programs_running(folder)) == 2
    assert session.down(folder) == "Ended 2 processes: node-0, node-1."
    assert processes.marked(folder) == []

    script = supervising(folder)
    assert session.down(folder) == "Ended 2 processes: node-0, node-1 and the script that supervised them."
    assert script.wait(30) == 0
    assert processes.marked(folder) == []


LEAVING = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from node.leaving import is_leaving, note_left
print('up', flush=True)
while "stays" in sys.argv[1:] or not is_leaving(Path({home!r})):
    time.sleep(0.05)
note_left(Path({home!r}))
"""


def leaving(folder: Folder, name: str, *arguments: str) -> Program:
    """What stands for a node: it leaves as soon as it is asked to."""
    folder.home(name).mkdir(parents=True)
    data = str(folder.home(name))
    settings = NodeSettings(name=name, genesis="g", key="k", data=data, coordinator="c", broker="redis://127.0.0.1")
    folders.write_settings(folder, {name: settings})
    return Program(name, (sys.executable, "-c", LEAVING.format(home=data), *arguments), folder.log(name))


def test_a_node_that_has_left_is_not_started_again_and_leave_waits_until_all_have(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "stop_signal", threading.Event)
    programs = [leaving(folder, "node-0"), leaving(folder, "node-1"), leaving(folder, "node-2", "stays")]
    running, _ = processes.start_missing(folder, programs)
    for one in programs:
        until(said(folder, one.name, "up"))
    supervisor = Supervisor(folder, programs, running)
    assert leave.main(["--data", str(folder.data), "node-0", "node-1", "--timeout", "20"]) == 0
    assert sorted(lines_of(supervisor, 2)) == ["node-0 has left the network", "node-1 has left the network"]
    assert leave.main(["--data", str(folder.data), "node-0", "node-2", "--timeout", "1"]) == 1
    assert is_leaving(folder.home("node-2")), "it still wants to"
    assert (supervisor.tick(), set(processes.programs_running(folder))) == ([], {"node-2"})
