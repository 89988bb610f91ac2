"""Whether disk and memory stay within bounds under load: ``python -m tests.measure_retention --keep-blocks 500 --minutes 15``.

A network of its own under full load, with retention scaled down: blocks are few, and the validity window is short. After each
burst a line: the greatest height, and of a node, on average, MB of its folder and of memory that is its own.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import psutil
from msgspec import structs

from node.protocol.genesis import read_genesis, write_genesis
from scripts.devnet import folder as folders
from scripts.devnet.folder import DevnetState
from scripts.devnet.layout import ROOT, Devnet, Folder
from tests.network.harness import Network
from tests.processes import free_port_base

LOAD = [sys.executable, "-m", "scripts.benchmark.run", "--seconds", "20", "--cross", "0.5"]


@contextmanager
def _network(folder: Folder, keep_blocks: int, window: int) -> Iterator[Network]:
    folders.make_devnet(folder, DevnetState(free_port_base(), keep_blocks=keep_blocks), None, None)
    genesis = read_genesis(folder.genesis)
    scaled = structs.replace(genesis.parameters, validity_window=window)
    write_genesis(folder.genesis, structs.replace(genesis, parameters=scaled))
    network = Network(folder.data)
    try:
        network.up()
        yield network
    finally:
        network.down()


def _figures(devnet: Devnet, network: Network) -> str:
    pids = network.pids()
    sizes = [sum(path.stat().st_size for path in devnet.folder.home(name).iterdir()) for name in devnet.node_names]
    memory = [psutil.Process(pids[name]).memory_full_info().uss for name in devnet.node_names]
    heights = network.audit()["heights"].values()
    return f"{max(heights):7} {mean(sizes) / 1e6:9.1f} {mean(memory) / 1e6:9.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-blocks", type=int, default=500)
    parser.add_argument("--window", type=int, default=310_000, help="validity window, ms; the load is valid for 300 s")
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data, _network(Folder(Path(data)), options.keep_blocks, options.window) as network:
        print(" seconds  height   disk MB memory MB", flush=True)
        began = time.monotonic()
        while time.monotonic() - began < options.minutes * 60:
            subprocess.run([*LOAD, "--data", data], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            print(f"{time.monotonic() - began:8.0f} {_figures(network.devnet, network)}", flush=True)


if __name__ == "__main__":
    main()
