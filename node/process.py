"""What a process takes of its machine, as it tells in its reports."""

import os
from functools import cache

import psutil

from node.protocol.reports import Process


def this_process(doing: str) -> Process:
    spent = os.times()
    seconds = spent.user + spent.system + spent.children_user + spent.children_system
    memory = _process(os.getpid()).memory_info().rss
    return Process(pid=os.getpid(), cpu_ms=int(seconds * 1000), memory=memory, doing=doing)


@cache
def _process(pid: int) -> psutil.Process:
    """Made once: it reads when the process began. By its id, since nodes are forked."""
    return psutil.Process(pid)
