"""Whether disk and memory stay within bounds under load: ``python -m tests.measure_retention --keep-blocks 500 --minutes 15``.

A network of its own under full load, with retention scaled down: blocks are few, and the validity window is short. Every 30 s a
line: the greatest height, and of a node, on average, MB of its folder and of memory that is its own.
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

_EVERY = 30.0


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
    heights = [shard["height"] for shard in network.audit()["shards"]]
    return f"{max(heights):7} {mean(sizes) / 1e6:9.1f} {mean(memory) / 1e6:9.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-blocks", type=int, default=500)
    parser.add_argument("--window", type=int, default=310_000, help="validity window, ms; the load is valid for 300 s")
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data, _network(Folder(Path(data)), options.keep_blocks, options.window) as network:
        seconds = str(int(options.minutes * 60))
        load = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmark.run", "--data", data, "--seconds", seconds, "--cross", "0.5"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        print(" seconds  height   disk MB memory MB", flush=True)
        began = time.monotonic()
        try:
            while load.poll() is None:
                time.sleep(_EVERY)
                print(f"{time.monotonic() - began:8.0f} {_figures(network.devnet, network)}", flush=True)
        finally:
            load.terminate()
            load.wait()


if __name__ == "__main__":
    main()
