"""What processes have used, as the operating system and they themselves count it: CPU, memory, bytes from peers."""

import http.client
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil
from msgspec import Struct

from scripts.devnet.layout import LOOPBACK

_PROPORTIONAL = re.compile(r"^Pss: +([0-9]+) kB$", re.MULTILINE)


class Usage(Struct, frozen=True):
    """Of all nodes together since they started: CPU seconds, bytes received from peers; and the memory of each in bytes."""

    cpu: float
    bytes_in: float
    memory: tuple[int, ...]


def usage(nodes: Sequence[int], metrics_ports: Sequence[int]) -> Usage:
    """``nodes``: process ids. Raises psutil.Error, OSError when one does not run any more."""
    return Usage(cpu_seconds(nodes), sum(metric(port, "bytes_in_total") for port in metrics_ports), memory(nodes))


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes and their descendants so far."""
    times = [process.cpu_times() for pid in pids for process in family(pid)]
    return sum(one.user + one.system for one in times)


def memory(pids: Iterable[int]) -> tuple[int, ...]:
    """Bytes of each process with its descendants."""
    return tuple(sum(map(proportional_memory, family(pid))) for pid in pids)


def proportional_memory(process: psutil.Process) -> int:
    """Bytes, of pages shared with others its part (PSS); where the system does not count that, all that is resident."""
    try:
        match = _PROPORTIONAL.search(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
    except OSError:
        match = None
    return int(match[1]) << 10 if match else int(process.memory_info().rss)


def heights(metrics_ports: Sequence[int]) -> list[int]:
    """Of the last final block of each node, as of the last second; 0 of one that does not answer yet."""
    found = []
    for port in metrics_ports:
        try:
            found.append(int(metric(port, "height")))
        except OSError:
            found.append(0)
    return found


def metric(port: int, name: str) -> float:
    """A figure of a node, 0 when it has none yet. Raises OSError."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"metrics on port {port}: {error!r}") from None
    finally:
        connection.close()
    match = re.search(rf"^shardpay_{name} ([0-9.e+]+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0
