"""Clients of the gateway that cost next to nothing themselves: many connections in one process, requests made beforehand.

A closed loop: each client posts its next request as soon as the one before is answered, until the time is over. Runs as a process
of its own, ``python -m scripts.benchmark.http_client``: a plan comes on standard input, what was seen goes to standard output.
"""

import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle

import msgspec
from msgspec import Struct

from scripts.devnet.layout import LOOPBACK, ROOT

GRACE_SECONDS = 40.0
"""For answers after the time is over: longer than the gateway lets anybody wait."""
COMMITTED, ACCEPTED = "committed", "accepted"


class Request(Struct, frozen=True):
    """A POST, whole; ``cross``: whether it pays into another shard."""

    cross: bool
    encoded: bytes


class Plan(Struct, frozen=True):
    port: int
    seconds: float
    clients: list[list[Request]]
    """What each client posts, over and over."""


class Seen(Struct):
    """What became of all requests.

    Fields:
        seconds: until no client posted any more; cpu: of this process meanwhile, seconds.
        answers: all of them, by outcome: ``committed``, ``accepted``, or what is wrong.
        in_time: those within ``seconds``, by outcome.
        intra, cross: latencies of those that committed, seconds.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    answers: dict[str, int] = {}
    in_time: dict[str, int] = {}
    intra: list[float] = []
    cross: list[float] = []


class _Body(Struct):
    """Of a transfer, or of a problem, whose ``status`` is the HTTP status."""

    status: str | int = ""
    code: str | None = None


class NotHttp(ValueError):
    """What came is no HTTP answer with a length."""


def take_answer(received: bytearray) -> str | None:
    """Cut the first whole answer off ``received``: its outcome; None when it is not all there yet. Raises NotHttp."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    length = rest.partition(b"\r\n")[0].strip()
    if not head.startswith(b"http/1.1 ") or not found or not length.isdigit():
        raise NotHttp(head.partition(b"\r\n")[0].decode(errors="replace"))
    if len(received) < (whole := end + 4 + int(length)):
        return None
    body = bytes(received[end + 4 : whole])
    del received[:whole]
    return outcome(int(head[9:12]), body)


def outcome(code: int, body: bytes) -> str:
    """``committed``, ``accepted``, or the status code and what the gateway calls it."""
    try:
        answer = msgspec.json.decode(body, type=_Body)
    except msgspec.DecodeError:
        return f"{code} not JSON"
    if code == 202:
        return ACCEPTED
    if code == 200 and answer.status == COMMITTED:
        return COMMITTED
    status = answer.status if isinstance(answer.status, str) else None
    return " ".join(filter(None, (str(code), status, answer.code)))


class _Client:
    """One connection, and the request on its way."""

    def __init__(self, port: int, requests: Sequence[Request]) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._received = bytearray()
        self._requests = cycle(requests)

    def post(self) -> None:
        """Raises OSError, also when the request does not fit into the socket's buffer at once."""
        self.request, self.posted = next(self._requests), time.monotonic()
        if self.socket.send(self.request.encoded) != len(self.request.encoded):
            raise OSError("a request was cut short")

    def answer(self) -> str | None:
        """The outcome, once the answer is whole. Raises OSError, NotHttp."""
        data = self.socket.recv(65536)
        if not data:
            raise OSError("connection closed")
        self._received += data
        return take_answer(self._received)


class _Loop:
    """All clients of a plan. One that gets something else than HTTP, or none, posts no more."""

    def __init__(self, plan: Plan) -> None:
        self._clients = [_Client(plan.port, requests) for requests in plan.clients]
        self._selector = selectors.DefaultSelector()
        self._over = time.monotonic() + plan.seconds
        self._answers, self._in_time = Counter[str](), Counter[str]()
        self._seen = Seen(plan.seconds)

    def run(self) -> Seen:
        cpu = time.process_time()
        for client in self._clients:
            self._selector.register(client.socket, selectors.EVENT_READ, client)
            client.post()
        while self._selector.get_map() and time.monotonic() < self._over + GRACE_SECONDS:
            for key, _ in self._selector.select(1.0):
                self._serve(key.data)
        self._answers["no answer"] += len(self._selector.get_map())
        self._seen.cpu = time.process_time() - cpu
        self._seen.answers, self._seen.in_time = dict(+self._answers), dict(self._in_time)
        return self._seen

    def _serve(self, client: _Client) -> None:
        try:
            if (result := client.answer()) is None:
                return
            now = time.monotonic()
            if now < self._over:
                self._count(client, result, now)
                client.post()
            else:
                self._selector.unregister(client.socket)
        except (OSError, NotHttp) as error:
            self._selector.unregister(client.socket)
            result = str(error)
        self._answers[result] += 1

    def _count(self, client: _Client, result: str, now: float) -> None:
        self._in_time[result] += 1
        if result == COMMITTED:
            (self._seen.cross if client.request.cross else self._seen.intra).append(now - client.posted)


def closed_loop(plan: Plan) -> Seen:
    """Carry a plan out in a process of its own. Raises OSError when that fails."""
    command = [sys.executable, "-m", "scripts.benchmark.http_client"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(msgspec.msgpack.encode(plan))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise OSError(f"the clients of the gateway ended with exit code {process.returncode}")
    return msgspec.msgpack.decode(output, type=Seen)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.msgpack.encode(_Loop(plan).run()))


if __name__ == "__main__":
    main()
