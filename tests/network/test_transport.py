"""The libp2p transport on real sockets: delivery, order, limits, dead and stopped peers, hostile callers."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_key_pair
from multiaddr import Multiaddr

from node.network import connection, transport
from node.network.connection import Connector, host_and_port
from node.network.events import Inbound, Message, PeerDown, PeerUp
from node.network.transport import MAX_HANDSHAKES, Transport, peer_id_of, public_key_of
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
from tests.waiting import trio_until

ANY_PORT = "/ip4/127.0.0.1/tcp/0"
_secrets = itertools.count(1)


def new_key() -> KeyPair:
    return KeyPair(next(_secrets).to_bytes(32, "big"))


async def start(nursery: trio.Nursery, key: KeyPair | None = None, listen: str = ANY_PORT, **options: Any) -> Transport:
    host = Transport(key or new_key(), listen, options.pop("accept", lambda _: True), **options)
    await nursery.start(host.run)
    return host


async def expect(host: Transport, *items: Inbound, within: float = 20) -> None:
    with trio.fail_after(within):
        for item in items:
            assert await host.inbox.receive() == item


async def pair(nursery: trio.Nursery, **options: Any) -> tuple[Transport, Transport]:
    """Two hosts, the second connected to the first; their PeerUps consumed. Options are the first one's."""
    a, b = await start(nursery, **options), await start(nursery)
    b.connect(a.public_key, a.addresses)
    await expect(a, PeerUp(b.public_key))
    await expect(b, PeerUp(a.public_key))
    return a, b


async def call(host: Transport, key: KeyPair, talk: Callable[[bytes, Any], Awaitable[None]]) -> None:
    """Connect to ``host`` as a peer that speaks libp2p, and then whatever ``talk`` does on the stream."""
    tcp = await trio.open_tcp_stream(*host_and_port(host.addresses[0]))
    await Connector(key).converse(tcp, trio.CancelScope(), talk, dialed=host.public_key)


async def forever(peer: bytes, stream: Any) -> None:
    await trio.sleep_forever()


def test_a_peer_id_holds_the_public_key_and_other_ids_hold_none() -> None:
    key = new_key().public
    peer_id = peer_id_of(key)
    assert public_key_of(peer_id) == key
    assert peer_id.to_base58().startswith("16Uiu2")  # the well-known look of secp256k1 peer ids
    kind = type(peer_id)
    ed25519 = b"\x00\x24\x08\x01\x12\x20" + bytes(32)
    hashed = b"\x12\x20" + bytes(32)
    not_a_point = b"\x00\x25\x08\x02\x12\x21\x02" + b"\xff" * 32
    for other in (ed25519, hashed, not_a_point, peer_id.to_bytes() + b"x", peer_id.to_bytes()[:-1], b""):
        assert public_key_of(kind(other)) is None
    with pytest.raises(ValueError, match="public key"):
        peer_id_of(bytes(33))


@pytest.mark.parametrize("address", ["", "10.0.0.1:80", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/1", "/ip4/10.0.0.1/tcp/x", "/tcp/1"])
def test_an_address_that_is_none_is_a_clear_error(address: str) -> None:
    with pytest.raises(ValueError, match="multiaddr"):
        Transport(new_key(), address, lambda _: True)


async def test_small_and_large_frames_both_ways(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    large = os.urandom(5 << 20)
    for one, other in ((a, b), (b, a)):
        assert one.send(other.public_key, large)
        assert one.send(other.public_key, b"small")
    for one, other in ((a, b), (b, a)):
        await expect(one, Message(other.public_key, b"small"), Message(other.public_key, large))
        assert (one.frames_in, one.frames_out) == (2, 2)
        assert one.bytes_in > len(large)
        await trio_until(lambda one=one: one.bytes_out > len(large))  # type: ignore[misc]  # counted when the write returns


async def test_each_kind_of_frame_keeps_its_order(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    for i in range(3000):
        assert b.send(a.public_key, i.to_bytes(150, "big"))
        if i % 100 == 0:
            assert b.send(a.public_key, i.to_bytes(40_000, "big"))
            await trio.lowlevel.checkpoint()
    got: dict[int, list[int]] = {150: [], 40_000: []}
    with trio.fail_after(10):
        while len(got[150]) < 3000 or len(got[40_000]) < 30:
            message = await a.inbox.receive()
            assert isinstance(message, Message)
            got[len(message.frame)].append(int.from_bytes(message.frame, "big"))
    assert got == {150: list(range(3000)), 40_000: list(range(0, 3000, 100))}


async def test_frames_nobody_would_read_are_refused_at_home(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    for frame in (b"", bytes(MAX_FRAME_BYTES + 1)):
        with pytest.raises(ValueError, match="a frame has"):
            a.send(b.public_key, frame)
    assert not a.send(new_key().public, b"to a stranger")


async def test_an_oversize_frame_drops_the_peer_and_nobody_else(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BAN_SECONDS", 0.5)
    a, b = await pair(nursery)
    hostile = new_key()

    async def oversize(peer: bytes, stream: Any) -> None:
        await stream.write((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        await trio.sleep_forever()

    nursery.start_soon(swallow, call, a, hostile, oversize)
    await expect(a, PeerUp(hostile.public), PeerDown(hostile.public), within=2)
    with trio.fail_after(2), pytest.raises(ExceptionGroup):  # stays away for a while
        await call(a, hostile, forever)
    await trio.sleep(transport.BAN_SECONDS)
    nursery.start_soon(swallow, call, a, hostile, forever)
    await expect(a, PeerUp(hostile.public))
    assert b.send(a.public_key, b"still here")
    await expect(a, Message(b.public_key, b"still here"))


async def test_a_banned_peer_is_dropped_and_comes_back_only_after_a_while(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BAN_SECONDS", 1.0)
    a, b = await pair(nursery)
    began = trio.current_time()
    a.ban(b.public_key)
    await expect(a, PeerDown(b.public_key))
    await expect(a, PeerUp(b.public_key), within=10)
    assert trio.current_time() - began >= 1.0


async def test_a_peer_that_is_not_accepted_gets_nowhere(nursery: trio.Nursery) -> None:
    asked: list[bytes] = []

    def accept(key: bytes) -> bool:
        asked.append(key)
        return len(asked) > 2

    a, b = await start(nursery, accept=accept), await start(nursery)
    b.connect(a.public_key, a.addresses)
    await trio_until(lambda: len(asked) == 2)
    assert not a.connected
    assert not b.connected
    await expect(b, PeerUp(a.public_key))  # the first thing it hears: refusals are not connections
    assert asked == [b.public_key] * 3


async def test_a_connection_is_made_again_after_the_other_side_restarts(nursery: trio.Nursery) -> None:
    key = new_key()
    b = await start(nursery)
    async with trio.open_nursery() as first_life:
        a = await start(first_life, key)
        b.connect(key.public, a.addresses)
        await expect(b, PeerUp(key.public))
        first_life.cancel_scope.cancel()
    await expect(b, PeerDown(key.public), within=1)
    assert not b.send(key.public, b"to nobody")
    a = await start(nursery, key, a.addresses[0])
    await expect(b, PeerUp(key.public))
    assert b.send(key.public, b"welcome back")
    await expect(a, PeerUp(b.public_key), Message(b.public_key, b"welcome back"))


async def test_new_addresses_replace_the_old_ones(nursery: trio.Nursery) -> None:
    a, b = await start(nursery), await start(nursery)
    b.connect(a.public_key, ["nonsense", "/ip4/127.0.0.1/tcp/1"])
    await trio.testing.wait_all_tasks_blocked()  # tried, in vain
    b.connect(a.public_key, a.addresses)
    await expect(b, PeerUp(a.public_key))
    b.connect(a.public_key, a.addresses)
    await trio.testing.wait_all_tasks_blocked(0.1)
    assert b.inbox.statistics().current_buffer_used == 0  # asking again changed nothing


async def test_disconnect_ends_the_connection_and_the_dialing(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    b.disconnect(a.public_key)
    await expect(b, PeerDown(a.public_key))
    await expect(a, PeerDown(b.public_key))
    await trio.sleep(4 * transport.FIRST_RETRY_SECONDS)
    assert not a.connected
    b.connect(a.public_key, a.addresses)
    await expect(b, PeerUp(a.public_key))


async def test_an_address_where_another_key_answers_is_no_connection(nursery: trio.Nursery) -> None:
    impostor, b, c = await start(nursery), await start(nursery), await start(nursery)
    c.connect(b.public_key, [*impostor.addresses, *b.addresses])
    await expect(c, PeerUp(b.public_key))
    await expect(b, PeerUp(c.public_key))
    assert not impostor.connected
    assert impostor.inbox.statistics().current_buffer_used == 0


async def test_a_newer_connection_takes_the_place_of_the_older(nursery: trio.Nursery) -> None:
    a, key = await start(nursery), new_key()
    nursery.start_soon(swallow, call, a, key, forever)
    await expect(a, PeerUp(key.public))
    heard: list[bytes] = []

    async def listen(peer: bytes, stream: Any) -> None:
        while True:
            heard.append(await stream.read(1000))

    nursery.start_soon(swallow, call, a, key, listen)
    await expect(a, PeerDown(key.public), PeerUp(key.public), within=2)
    assert a.send(key.public, b"to the newer one")
    await trio_until(lambda: b"to the newer one" in b"".join(heard))


async def test_a_peer_that_does_not_read_fills_its_queue_and_no_more(nursery: trio.Nursery) -> None:
    a, key, limit = await start(nursery, queue_bytes=1 << 20), new_key(), 1 << 20
    nursery.start_soon(swallow, call, a, key, forever)
    await expect(a, PeerUp(key.public))
    frame, sent, refused = bytes(100_000), 0, 0
    with trio.move_on_after(1):
        while True:
            if a.send(key.public, frame):
                sent += len(frame)
            else:
                refused += 1
                await trio.sleep(0.01)
    assert refused > 20
    assert limit - len(frame) <= sent <= limit + connection.WINDOW_BYTES + 2 * len(frame)
    assert a.connected == {key.public}


async def test_a_slow_consumer_slows_the_sender_down_and_loses_nothing(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "INBOX_BYTES", 1 << 20)
    a = await start(nursery)
    b = await start(nursery, queue_bytes=1 << 20)
    b.connect(a.public_key, a.addresses)
    await expect(b, PeerUp(a.public_key))
    await expect(a, PeerUp(b.public_key))
    sent, refusals = 0, 0
    with trio.fail_after(20):
        while refusals < 100:  # a second without progress
            if b.send(a.public_key, sent.to_bytes(100_000, "big")):
                sent, refusals = sent + 1, 0
            else:
                refusals += 1
                await trio.sleep(0.01)
    assert sent * 100_000 < 2 * connection.WINDOW_BYTES + (3 << 20)
    await expect(a, *(Message(b.public_key, i.to_bytes(100_000, "big")) for i in range(sent)))


async def test_a_peer_that_ignores_flow_control_is_dropped(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "INBOX_BYTES", 0)
    monkeypatch.setattr(connection, "WINDOW_BYTES", 1 << 20)
    a, key = await start(nursery), new_key()

    async def flood(peer: bytes, stream: Any) -> None:
        stream.send_window = 1 << 30
        frame = (60_000).to_bytes(4, "big") + bytes(60_000)
        while True:
            await stream.write(frame)

    nursery.start_soon(swallow, call, a, key, flood)
    await trio_until(lambda: key.public in a.connected)
    await trio_until(lambda: key.public not in a.connected)


async def test_hostile_callers_leave_nothing_behind(nursery: trio.Nursery) -> None:
    a = await start(nursery)
    where = host_and_port(a.addresses[0])
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    for i in range(1000):
        tcp = await trio.open_tcp_stream(*where)
        if i % 3:
            await tcp.send_all(os.urandom(1 + i % 300))
        await trio.aclose_forcefully(tcp)
    await trio_until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
    held = [await trio.open_tcp_stream(*where) for _ in range(3 * MAX_HANDSHAKES)]  # and say nothing
    # well before they time out, all but the newest are hung up on
    await trio_until(lambda: trio.lowlevel.current_statistics().tasks_living <= before + MAX_HANDSHAKES, within=3)
    b = await start(nursery)
    b.connect(a.public_key, a.addresses)
    await expect(a, PeerUp(b.public_key), within=2)
    for tcp in held:
        await trio.aclose_forcefully(tcp)
    await trio_until(lambda: trio.lowlevel.current_statistics().tasks_living <= before + 25)  # b and its connection


async def test_a_caller_that_never_finishes_is_hung_up_on(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.3)
    a = await start(nursery)
    silent = await trio.open_tcp_stream(*host_and_port(a.addresses[0]))
    with trio.fail_after(2):
        while await silent.receive_some(1000):
            pass  # its side of the handshake, then the end


async def test_a_caller_that_announces_a_huge_message_is_hung_up_on_at_once(nursery: trio.Nursery) -> None:
    a = await start(nursery)
    tcp = await trio.open_tcp_stream(*host_and_port(a.addresses[0]))
    await tcp.send_all(b"\xff\xff\xff\x7f")  # 256 MiB, as a varint
    with trio.fail_after(1):
        while await tcp.receive_some(1000):
            pass


async def test_an_ordinary_libp2p_host_is_understood(nursery: trio.Nursery) -> None:
    a, key = await start(nursery), new_key()
    host = new_host(secp256k1_key_pair(key.secret))
    host.get_network().notifees.clear()  # no identify: the only stream is ours
    async with host.run([]):
        await host.get_network().dial_addr(Multiaddr(a.addresses[0]), peer_id_of(a.public_key))
        stream = await host.new_stream(peer_id_of(a.public_key), [connection.PROTOCOL])
        await expect(a, PeerUp(key.public))
        await stream.write(b"\0\0\0\5hello")
        await expect(a, Message(key.public, b"hello"))
        assert a.send(key.public, b"hello yourself")
        with trio.fail_after(2):
            heard = b""
            while b"hello yourself" not in heard:
                heard += await stream.read(1000)
        await host.disconnect(peer_id_of(a.public_key))
        await expect(a, PeerDown(key.public), within=1)


async def swallow(call: Callable[..., Awaitable[None]], *args: Any) -> None:
    try:
        await call(*args)
    except* Exception:
        pass


CHILD = """
import sys, trio
from node.network.transport import Transport
from node.protocol.crypto import KeyPair

async def main() -> None:
    host = Transport(KeyPair(bytes.fromhex(sys.stdin.readline())), "/ip4/127.0.0.1/tcp/0", lambda _: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        print(host.addresses[0], flush=True)
        async for _ in host.inbox:
            pass

trio.run(main)
"""


@contextmanager
def child(key: KeyPair) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A host in a process of its own, and its address."""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=root,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(key.secret.hex() + "\n")
            process.stdin.flush()
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def test_a_killed_peer_is_noticed_within_a_second(nursery: trio.Nursery) -> None:
    a, key = await start(nursery), new_key()
    with child(key) as (process, address):
        a.connect(key.public, [address])
        await expect(a, PeerUp(key.public))
        process.kill()
        await expect(a, PeerDown(key.public), within=1)


async def test_a_stopped_peer_is_noticed_and_found_again_when_it_goes_on(nursery: trio.Nursery) -> None:
    a, key = await start(nursery), new_key()
    with child(key) as (process, address):
        a.connect(key.public, [address])
        await expect(a, PeerUp(key.public))
        process.send_signal(signal.SIGSTOP)
        await expect(a, PeerDown(key.public), within=7)
        process.send_signal(signal.SIGCONT)
        await expect(a, PeerUp(key.public), within=7)


async def test_an_idle_connection_stays(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PING_SECONDS", 0.1)
    monkeypatch.setattr(transport, "SILENCE_SECONDS", 0.5)
    a, b = await pair(nursery)
    with trio.move_on_after(1.5):
        raise AssertionError(f"heard {await a.inbox.receive()}")
    assert a.connected == {b.public_key}
    assert b.connected == {a.public_key}
