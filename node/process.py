"""What a process takes of its machine, as it tells in its reports."""

import os

import psutil

from node.protocol.reports import Process


def this_process(doing: str) -> Process:
    process = psutil.Process()
    with process.oneshot():
        cpu = process.cpu_times()
        seconds = cpu.user + cpu.system + cpu.children_user + cpu.children_system
        return Process(pid=os.getpid(), cpu_ms=int(seconds * 1000), memory=process.memory_info().rss, doing=doing)
