"""What processes have used, as the operating system and they themselves count it: CPU, memory, bytes from peers."""

import http.client
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil
from msgspec import Struct

_BYTES_IN = re.compile(rb"^shardpay_bytes_in_total ([0-9.e+]+)$", re.MULTILINE)
_PROPORTIONAL = re.compile(r"^Pss: +([0-9]+) kB$", re.MULTILINE)


class Usage(Struct, frozen=True):
    """Of all nodes together since they started: CPU seconds, bytes received from peers; and the memory of each in bytes."""

    cpu: float
    bytes_in: float
    memory: tuple[int, ...]


def usage(nodes: Mapping[str, int], metrics_ports: Sequence[int]) -> Usage:
    """``nodes``: process ids by name. Raises psutil.Error, OSError when one does not run any more."""
    memory = tuple(sum(map(proportional_memory, family(pid))) for pid in nodes.values())
    return Usage(cpu_seconds(nodes.values()), sum(map(_bytes_in, metrics_ports)), memory)


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes and their descendants so far."""
    times = [process.cpu_times() for pid in pids for process in family(pid)]
    return sum(one.user + one.system for one in times)


def proportional_memory(process: psutil.Process) -> int:
    """Bytes, of pages shared with others its part (PSS); where the system does not count that, all that is resident."""
    try:
        match = _PROPORTIONAL.search(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
    except OSError:
        match = None
    return int(match[1]) << 10 if match else int(process.memory_info().rss)


def _bytes_in(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        match = _BYTES_IN.search(connection.getresponse().read())
        return float(match[1]) if match else 0.0
    finally:
        connection.close()
