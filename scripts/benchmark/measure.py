"""What the machine does, measured beside the load: CPU and memory of the nodes, the cost of a signature check and a disk
write, the delay of the network."""

import http.client
import os
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from msgspec import Struct

from node.protocol.crypto import KeyPair, verify

_BYTES_IN = re.compile(rb"^shardpay_bytes_in_total ([0-9.e+]+)$", re.MULTILINE)


class Usage(Struct, frozen=True):
    """Of all nodes together: CPU seconds, bytes received from peers; and the largest node's memory in bytes."""

    cpu: float
    bytes_in: float
    memory: int


def usage(nodes: Mapping[str, int], metrics_ports: Sequence[int]) -> Usage:
    """Usage since the nodes' start. ``nodes``: process ids by name."""
    cpu, memory = 0.0, 0
    for pid in nodes.values():
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            cpu += times.user + times.system
        memory = max(memory, process.memory_info().rss)
    return Usage(cpu, sum(map(_bytes_in, metrics_ports)), memory)


def _bytes_in(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        match = _BYTES_IN.search(connection.getresponse().read())
        return float(match[1]) if match else 0.0
    finally:
        connection.close()


def check_cost(checks: int = 4_000) -> float:
    """CPU seconds of one signature check on this machine, now."""
    key, message = KeyPair(bytes(31) + b"\x01"), bytes(32)
    signature = key.sign(message)
    began = time.process_time()
    for _ in range(checks):
        verify(key.public, message, signature)
    return (time.process_time() - began) / checks


def write_cost(folder: Path, writes: int = 50) -> float:
    """Seconds of one small durable write (write and fsync), the median."""
    path = folder / "write-probe"
    samples = []
    with path.open("wb") as file:
        for _ in range(writes):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            samples.append(time.perf_counter() - began)
    path.unlink()
    return sorted(samples)[len(samples) // 2]


def one_way_delay(rounds: int = 200) -> float:
    """Seconds a small message takes between two sockets of this machine, the median: half of a round trip."""
    near, far = socket.socketpair()

    def echo() -> None:
        while data := far.recv(64):
            far.sendall(data)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        near.sendall(b"ping")
        near.recv(64)
        samples.append((time.perf_counter() - began) / 2)
    near.close()
    thread.join(1)
    far.close()
    return sorted(samples)[len(samples) // 2]
