"""The libp2p transport on real sockets: delivery, order, limits, dead and stopped peers, hostile callers."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_key_pair
from multiaddr import Multiaddr

from node.network import callers, connection, inbox, link, links, transport
from node.network.callers import MAX_HANDSHAKES
from node.network.connection import Connector, host_and_port
from node.network.events import Inbound, Message, PeerDown, PeerUp
from node.network.framing import PING, FrameDecoder
from node.network.links import Visits
from node.network.stream import Stream
from node.network.transport import Transport, peer_id_of, public_key_of
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES
from scripts.devnet.layout import ROOT
from tests.chains import key
from tests.network import caller
from tests.network.caller import Line
from tests.waiting import trio_until

ANY_PORT = "/ip4/127.0.0.1/tcp/0"
_numbers = itertools.count()


def new_key() -> KeyPair:
    return key(f"transport {next(_numbers)}")


async def start(nursery: trio.Nursery, owner: KeyPair | None = None, listen: str = ANY_PORT, **options: Any) -> Transport:
    host = Transport(owner or new_key(), listen, options.pop("accept", lambda _: True), **options)
    await nursery.start(host.run)
    return host


async def expect(host: Transport, *items: Inbound, within: float = 20) -> None:
    with trio.fail_after(within):
        for item in items:
            assert await host.inbox.receive() == item


async def pair(nursery: trio.Nursery, **options: Any) -> tuple[Transport, Transport]:
    """Two hosts, the second connected to the first; their PeerUps consumed. Options are the second one's."""
    a, b = await start(nursery), await start(nursery, **options)
    b.connect(a.public_key, a.addresses)
    await expect(a, PeerUp(b.public_key))
    await expect(b, PeerUp(a.public_key))
    return a, b


async def forever(line: Line) -> None:
    await trio.sleep_forever()


async def call(host: Transport, owner: KeyPair, talk: Callable[[Line], Awaitable[None]] = forever) -> None:
    """Be a peer that says whatever ``talk`` does on the stream, until hung up on."""
    try:
        await caller.call(owner, host.public_key, host.addresses[0], talk)
    except* Exception:
        pass


def test_a_peer_id_holds_the_public_key_and_other_ids_hold_none() -> None:
    public = new_key().public
    peer_id = peer_id_of(public)
    assert public_key_of(peer_id) == public
    assert peer_id.to_base58().startswith("16Uiu2")  # the well-known look of secp256k1 peer ids
    ed25519, hashed = b"\x00\x24\x08\x01\x12\x20" + bytes(32), b"\x12\x20" + bytes(32)
    not_a_point = b"\x00\x25\x08\x02\x12\x21\x02" + b"\xff" * 32
    for other in (ed25519, hashed, not_a_point, peer_id.to_bytes() + b"x", peer_id.to_bytes()[:-1], b""):
        assert public_key_of(type(peer_id)(other)) is None
    with pytest.raises(ValueError, match="public key"):
        peer_id_of(bytes(33))


@pytest.mark.parametrize("address", ["", "10.0.0.1:80", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/1", "/ip4/10.0.0.1/tcp/x", "/tcp/1"])
def test_an_address_that_is_none_is_a_clear_error(address: str) -> None:
    with pytest.raises(ValueError, match="multiaddr"):
        Transport(new_key(), address, lambda _: True)


async def test_small_and_large_frames_both_ways_each_kind_in_order(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    frames = [os.urandom(5 << 20), *(i.to_bytes(150 if i % 100 else 40_000, "big") for i in range(3000))]

    def is_large(frame: bytes) -> bool:
        return len(frame) > 150

    async def exchange(one: Transport, other: Transport) -> None:
        assert all(one.send(other.public_key, frame) for frame in frames)
        got = [item.frame for _ in frames if isinstance(item := await one.inbox.receive(), Message)]
        assert sorted(got, key=is_large) == sorted(frames, key=is_large)

    with trio.fail_after(20):
        async with trio.open_nursery() as both:
            both.start_soon(exchange, a, b)
            both.start_soon(exchange, b, a)
    for host in (a, b):
        assert host.frames_in == host.frames_out == len(frames)
        assert host.bytes_in > sum(map(len, frames))
        await trio_until(lambda host=host: host.bytes_out > sum(map(len, frames)))  # type: ignore[misc]  # once written
    for frame in (b"", bytes(MAX_FRAME_BYTES + 1)):
        with pytest.raises(ValueError, match="a frame has"):
            a.send(b.public_key, frame)
    assert not a.send(new_key().public, b"to a stranger")


async def test_a_peer_that_breaks_the_framing_or_is_banned_comes_back_only_after_a_while(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "BAN_SECONDS", 3.0)
    monkeypatch.setattr(link, "FRAME_SECONDS", 60.0)
    a, b = await pair(nursery)
    hostile = new_key()

    async def oversize(line: Line) -> None:
        await line.write((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        await trio.sleep_forever()

    nursery.start_soon(call, a, hostile, oversize)
    await expect(a, PeerUp(hostile.public), PeerDown(hostile.public))
    with trio.fail_after(20):
        await call(a, hostile)  # not let in
    assert b.send(a.public_key, b"still here")
    await expect(a, Message(b.public_key, b"still here"))
    began = trio.current_time()
    a.ban(b.public_key)
    await expect(a, PeerDown(b.public_key), PeerUp(b.public_key))
    assert trio.current_time() - began >= 3.0
    nursery.start_soon(call, a, hostile)
    await expect(a, PeerUp(hostile.public))


async def test_what_several_peers_send_at_once_is_all_counted(nursery: trio.Nursery) -> None:
    host, size, count = await start(nursery), 10_000, 20
    peers = [await start(nursery) for _ in range(4)]
    for peer in peers:
        peer.connect(host.public_key, host.addresses)
        await expect(peer, PeerUp(host.public_key))
    for _ in range(count):
        for peer in peers:
            peer.send(host.public_key, bytes(size))
    messages = 0
    with trio.fail_after(20):
        while messages < count * len(peers):
            messages += isinstance(await host.inbox.receive(), Message)
    assert host.bytes_in > size * count * len(peers)


async def test_a_peer_that_is_not_accepted_gets_nowhere(nursery: trio.Nursery) -> None:
    asked: list[bytes] = []

    def accept(key: bytes) -> bool:
        asked.append(key)
        return len(asked) > 2

    a, b = await start(nursery, accept=accept), await start(nursery)
    b.connect(a.public_key, a.addresses)
    await trio_until(lambda: len(asked) == 2)
    assert not a.connected | b.connected
    await expect(b, PeerUp(a.public_key))  # the first thing it hears: refusals are not connections
    assert asked == [b.public_key] * 3


async def test_a_connection_is_made_again_after_the_other_side_restarts(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SILENCE_SECONDS", 60.0)
    owner, b = new_key(), await start(nursery)
    async with trio.open_nursery() as first_life:
        a = await start(first_life, owner)
        b.connect(owner.public, a.addresses)
        await expect(b, PeerUp(owner.public))
        first_life.cancel_scope.cancel()
    await expect(b, PeerDown(owner.public))
    assert not b.send(owner.public, b"to nobody")
    a = await start(nursery, owner, a.addresses[0])
    await expect(b, PeerUp(owner.public))
    assert b.send(owner.public, b"welcome back")
    await expect(a, PeerUp(b.public_key), Message(b.public_key, b"welcome back"))


async def test_new_addresses_replace_the_old_ones_and_where_another_key_answers_is_no_connection(nursery: trio.Nursery) -> None:
    impostor, a, b = await start(nursery), await start(nursery), await start(nursery)
    b.connect(a.public_key, ["nonsense", "/ip4/127.0.0.1/tcp/1"])
    await trio.testing.wait_all_tasks_blocked()  # tried, in vain
    for _ in range(2):  # asking again changes nothing
        b.connect(a.public_key, [*impostor.addresses, *a.addresses])
        await trio_until(lambda: b.connected == {a.public_key} and a.connected == {b.public_key})
        await trio.testing.wait_all_tasks_blocked(0.1)
    waiting = [len(host.inbox) for host in (impostor, a, b)]
    assert (waiting, impostor.connected) == ([0, 1, 1], frozenset())


async def test_disconnect_ends_the_connection_and_the_dialing(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    b.disconnect(a.public_key)
    await expect(b, PeerDown(a.public_key))
    await expect(a, PeerDown(b.public_key))
    await trio.sleep(4 * transport.FIRST_RETRY_SECONDS)
    assert not a.connected
    b.connect(a.public_key, a.addresses)
    await expect(b, PeerUp(a.public_key))


async def test_a_newer_connection_takes_the_place_of_the_older(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SILENCE_SECONDS", 60.0)
    a, owner, heard = await start(nursery), new_key(), bytearray()
    nursery.start_soon(call, a, owner)
    await expect(a, PeerUp(owner.public))

    async def listen(line: Line) -> None:
        while True:
            heard.extend(await line.read())

    nursery.start_soon(call, a, owner, listen)
    await expect(a, PeerDown(owner.public), PeerUp(owner.public))
    assert a.send(owner.public, b"to the newer one")
    await trio_until(lambda: b"to the newer one" in heard)


async def test_a_slow_consumer_slows_the_sender_down_and_loses_nothing(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "INBOX_BYTES", 1 << 20)
    a, b = await pair(nursery, queue_bytes=1 << 20)
    sent, refusals = 0, 0
    with trio.fail_after(20):
        while refusals < 50:  # half a second without progress
            if b.send(a.public_key, sent.to_bytes(100_000, "big")):
                sent, refusals = sent + 1, 0
            else:
                refusals += 1
                await trio.sleep(0.01)
    assert 2 << 20 < sent * 100_000 < connection.UNREAD_BYTES + (3 << 20)
    assert b.connected == {a.public_key}
    await expect(a, *(Message(b.public_key, i.to_bytes(100_000, "big")) for i in range(sent)))


async def test_what_is_sent_together_is_written_at_the_end_of_it_at_once(nursery: trio.Nursery) -> None:
    a, b = await pair(nursery)
    with a.together():
        a.send(b.public_key, b"1")
        a.send(b.public_key, b"2")
        assert a.bytes_out == 0
    assert a.bytes_out == 10, "no other task had a turn"
    await expect(b, Message(a.public_key, b"1"), Message(a.public_key, b"2"))


async def test_a_peer_that_ignores_flow_control_is_dropped(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "INBOX_BYTES", 0)
    a, owner, written = await start(nursery), new_key(), 0
    async with libp2p_host(owner) as host, trio.open_nursery() as meanwhile:
        await host.get_network().dial_addr(Multiaddr(a.addresses[0]), peer_id_of(a.public_key))
        stream = await host.new_stream(peer_id_of(a.public_key), [connection.protocol_of(1)])
        stream.muxed_stream.send_window = 1 << 30

        async def flood() -> None:
            nonlocal written
            while True:
                await stream.write((60_000).to_bytes(4, "big") + bytes(60_000))
                written += 60_004

        async def flood_until_hung_up_on() -> None:
            with suppress(Exception):
                await flood()

        meanwhile.start_soon(flood_until_hung_up_on)
        await expect(a, PeerUp(owner.public))
        await trio_until(lambda: owner.public not in a.connected)
        meanwhile.cancel_scope.cancel()
    assert written > connection.UNREAD_BYTES - 60_004


async def test_where_only_small_frames_are_read_a_peer_has_little_unread(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "INBOX_BYTES", 0)
    a, owner, written = await start(nursery, max_frame=1000), new_key(), 0

    async def flood(line: Line) -> None:
        nonlocal written
        while True:
            await line.write(((1000).to_bytes(4, "big") + bytes(1000)) * 10)
            written += 10_040

    nursery.start_soon(call, a, owner, flood)
    await expect(a, PeerUp(owner.public))
    await trio_until(lambda: owner.public not in a.connected)
    assert transport.STRANGER_UNREAD_BYTES - 10_040 < written < 1 << 20
    assert a.frames_in < 500


async def test_a_peer_that_takes_nothing_is_gone(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_SECONDS", 0.1)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.5)
    a, owner = await start(nursery), new_key()

    async def speak_and_do_not_listen(peer: bytes, stream: Stream) -> None:
        while True:
            stream.send(PING)
            await trio.sleep(0.05)

    tcp = await trio.open_tcp_stream(*host_and_port(a.addresses[0]))
    connector = Connector(owner)

    async def converse() -> None:
        with suppress(OSError):
            await connector.converse(tcp, trio.CancelScope(), speak_and_do_not_listen, dialed=a.public_key)

    nursery.start_soon(converse)
    await expect(a, PeerUp(owner.public))
    await trio.sleep(1)
    assert a.connected == {owner.public}
    assert a.send(owner.public, bytes(MAX_FRAME_BYTES))
    await expect(a, PeerDown(owner.public))


async def test_a_frame_longer_than_this_host_reads_ends_the_connection_at_its_length(nursery: trio.Nursery) -> None:
    a, b = await start(nursery, max_frame=1000), await start(nursery)
    b.connect(a.public_key, a.addresses)
    await expect(a, PeerUp(b.public_key))
    await expect(b, PeerUp(a.public_key))
    assert b.send(a.public_key, bytes(1000))
    await expect(a, Message(b.public_key, bytes(1000)))
    assert b.send(a.public_key, bytes(1001))
    await expect(a, PeerDown(b.public_key))


def drip(size: int) -> Callable[[Line], Awaitable[None]]:
    """Half a frame at once, and from then on a byte now and then."""

    async def talk(line: Line) -> None:
        await line.write((2 * size).to_bytes(4, "big") + bytes(size))
        while True:
            await trio.sleep(0.1)
            await line.write(b"x")

    return talk


async def test_a_frame_that_is_not_finished_in_time_ends_the_connection(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FRAME_SECONDS", 1.0)
    a, b = await pair(nursery)
    dripping = new_key()
    nursery.start_soon(call, a, dripping, drip(1000))
    await expect(a, PeerUp(dripping.public))
    began = trio.current_time()
    for number in range(12):  # for longer than one frame may take
        assert b.send(a.public_key, bytes([number]))
        await trio.sleep(0.1)
    with trio.fail_after(5):
        items = [await a.inbox.receive() for _ in range(13)]
    assert [item for item in items if isinstance(item, PeerDown)] == [PeerDown(dripping.public)]
    assert 1 <= trio.current_time() - began < 5
    assert a.connected == {b.public_key}


async def test_of_peers_with_too_much_unfinished_together_the_one_with_the_most_is_dropped(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "HELD_BYTES", 3 << 20)
    a, small, large, last = await start(nursery), new_key(), new_key(), new_key()
    for owner, size in ((small, 500_000), (large, 2_000_000)):
        nursery.start_soon(call, a, owner, drip(size))
        await expect(a, PeerUp(owner.public))
    nursery.start_soon(call, a, last, drip(1_500_000))
    await expect(a, PeerUp(last.public), PeerDown(large.public))
    assert a.connected == {small.public, last.public}


async def test_a_stranger_too_many_takes_the_place_of_the_oldest_never_of_who_is_known(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_STRANGERS", 2)
    known, *strangers = [new_key() for _ in range(4)]
    a = await start(nursery, known=lambda peer: peer == known.public)
    for owner in (known, *strangers):
        nursery.start_soon(call, a, owner)
        await expect(a, PeerUp(owner.public))
    await expect(a, PeerDown(strangers[0].public))
    assert a.connected == {known.public, strangers[1].public, strangers[2].public}


async def test_calls_beyond_the_rate_are_hung_up_on_before_a_handshake(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "CALLS_AT_ONCE", 3.0)
    monkeypatch.setattr(callers, "CALLS_PER_SECOND", 2.0)
    a = await start(nursery)
    greeted = 0
    for _ in range(10):
        tcp = await trio.open_tcp_stream(*host_and_port(a.addresses[0]))
        await tcp.send_all(b"\x13/multistream/1.0.0\n")
        with suppress(trio.BrokenResourceError), trio.fail_after(20):
            greeted += bool(await tcp.receive_some(100))
        await trio.aclose_forcefully(tcp)
    assert 3 <= greeted <= 4  # the last one on account
    b = await start(nursery)
    b.connect(a.public_key, a.addresses)
    await expect(a, PeerUp(b.public_key))


async def test_hostile_callers_leave_nothing_behind(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 60.0)
    a = await start(nursery)
    where = host_and_port(a.addresses[0])
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living

    async def living(most: int) -> None:
        await trio_until(lambda: trio.lowlevel.current_statistics().tasks_living <= before + most)

    for i in range(300):
        tcp = await trio.open_tcp_stream(*where)
        if i % 3:
            await tcp.send_all(os.urandom(1 + i))
        await trio.aclose_forcefully(tcp)
    await living(0)
    held = [await trio.open_tcp_stream(*where) for _ in range(3 * MAX_HANDSHAKES)]  # and say nothing
    await living(MAX_HANDSHAKES)  # well before they time out, all but the newest are hung up on
    b = await start(nursery)
    b.connect(a.public_key, a.addresses)
    await expect(a, PeerUp(b.public_key))
    for tcp in held:
        await trio.aclose_forcefully(tcp)
    await living(25)  # b and its connection


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(b"", 0.3), (b"\xff\xff\xff\x7f", connection.HANDSHAKE_SECONDS)],
    ids=["never finishes", "announces 256 MiB"],
)
async def test_a_caller_that_does_not_get_on_with_it_is_hung_up_on(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, said: bytes, seconds: float
) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", seconds)
    a = await start(nursery)
    tcp = await trio.open_tcp_stream(*host_and_port(a.addresses[0]))
    await tcp.send_all(said)
    with trio.fail_after(4):
        while await tcp.receive_some(1000):
            pass  # its side of the handshake, then the end


@asynccontextmanager
async def libp2p_host(owner: KeyPair, *listen: str) -> AsyncIterator[Any]:
    host = new_host(secp256k1_key_pair(owner.secret))
    host.get_network().notifees.clear()  # no identify: the only stream is ours
    async with host.run([Multiaddr(address) for address in listen]):
        yield host


async def talk_to_libp2p(a: Transport, owner: KeyPair, stream: Any) -> None:
    """Small messages and large ones, both ways, more than a window."""
    await expect(a, PeerUp(owner.public))
    await stream.write(b"\0\0\0\5hello")
    await expect(a, Message(owner.public, b"hello"))
    large = os.urandom(3 << 20)

    async def write() -> None:
        await stream.write(len(large).to_bytes(4, "big") + large)

    async with trio.open_nursery() as both:
        both.start_soon(write)
        assert a.send(owner.public, large)
        assert a.send(owner.public, b"hello yourself")
        heard = bytearray()
        with trio.fail_after(20):
            while len(heard) < len(large) + 14 + 8:
                heard += await stream.read(1 << 16)
        await expect(a, Message(owner.public, large))
    decoder = FrameDecoder()
    assert sorted(decoder.feed(bytes(heard)), key=len) == [b"hello yourself", large]


async def test_an_ordinary_libp2p_host_may_call(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SILENCE_SECONDS", 60.0)
    a, owner = await start(nursery), new_key()
    peer_id = peer_id_of(a.public_key)
    async with libp2p_host(owner) as host:
        await host.get_network().dial_addr(Multiaddr(a.addresses[0]), peer_id)
        await talk_to_libp2p(a, owner, await host.new_stream(peer_id, [connection.protocol_of(1)]))
        await host.disconnect(peer_id)
        await expect(a, PeerDown(owner.public))


async def test_an_ordinary_libp2p_host_may_be_called(nursery: trio.Nursery) -> None:
    a, owner = await start(nursery), new_key()
    done = trio.Event()

    async def handle(stream: Any) -> None:
        await talk_to_libp2p(a, owner, stream)
        done.set()

    async with libp2p_host(owner, ANY_PORT) as host:
        host.set_stream_handler(connection.protocol_of(1), handle)
        a.connect(owner.public, [str(host.get_addrs()[0])])
        await trio_until(done.is_set)
        a.disconnect(owner.public)
        await expect(a, PeerDown(owner.public))


CHILD = """
import sys, trio
from node.network import link, transport
from node.protocol.crypto import KeyPair

async def main() -> None:
    link.PING_SECONDS = 0.2
    host = transport.Transport(KeyPair(bytes.fromhex(sys.stdin.readline())), "/ip4/127.0.0.1/tcp/0", lambda _: True)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        print(host.addresses[0], flush=True)
        async for _ in host.inbox:
            pass

trio.run(main)
"""


@contextmanager
def child(owner: KeyPair) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A host in a process of its own, and its address."""
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=nowhere) as process:
        assert process.stdin
        assert process.stdout
        try:
            print(owner.secret.hex(), file=process.stdin, flush=True)
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def test_a_stopped_peer_is_noticed_and_found_again_and_a_killed_one_without_waiting_for_silence(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SILENCE_SECONDS", 2.0)
    a, owner = await start(nursery), new_key()
    with child(owner) as (process, address):
        a.connect(owner.public, [address])
        await expect(a, PeerUp(owner.public))
        process.send_signal(signal.SIGSTOP)
        await expect(a, PeerDown(owner.public))
        process.send_signal(signal.SIGCONT)
        await expect(a, PeerUp(owner.public))
        monkeypatch.setattr(link, "SILENCE_SECONDS", 60.0)
        process.kill()
        await expect(a, PeerDown(owner.public))


async def test_an_idle_connection_stays(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_SECONDS", 0.1)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.5)
    a, b = await pair(nursery)
    with trio.move_on_after(1.2):
        raise AssertionError(f"heard {await a.inbox.receive()}")
    assert (a.connected, b.connected) == ({b.public_key}, {a.public_key})


# -- connections on demand ---------------------------------------------------------------------------------------------------


async def visitors(nursery: trio.Nursery, count: int, **options: Any) -> list[Transport]:
    """Hosts that know each other's addresses, and are connected with nobody."""
    hosts = [await start(nursery, known=lambda _: False, **options) for _ in range(count)]
    for host in hosts:
        host.reach({other.public_key: other.addresses for other in hosts if other is not host})
    return hosts


async def test_where_there_is_something_to_send_a_connection_is_made_and_nothing_is_lost(nursery: trio.Nursery) -> None:
    a, b, c = await visitors(nursery, 3)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert not a.connected | b.connected | c.connected
    frames = [number.to_bytes(4, "big") for number in range(1, 50)]
    assert all(a.send(b.public_key, frame) for frame in frames)
    await expect(b, PeerUp(a.public_key), *(Message(a.public_key, frame) for frame in frames))
    assert b.send(a.public_key, b"an answer")
    await expect(a, PeerUp(b.public_key), Message(b.public_key, b"an answer"))
    assert not a.send(new_key().public, b"to nobody known")
    assert [a.connected, b.connected, c.connected] == [{b.public_key}, {a.public_key}, set()]


async def test_what_waits_for_somebody_who_does_not_answer_is_dropped_and_bounded(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_EARLY_BYTES", 1_000)
    monkeypatch.setattr(transport, "MAX_CALLS", 2)
    gone, later = new_key(), new_key()
    a = await start(nursery, known=lambda _: False)
    a.reach({peer: ["/ip4/127.0.0.1/tcp/1"] for peer in (gone.public, later.public, new_key().public)})
    assert a.send(gone.public, bytes(600))
    assert not a.send(gone.public, bytes(600))
    assert a.send(later.public, b"x")
    assert not [peer for peer in a._reachable if peer not in (gone.public, later.public) and a.send(peer, b"x")]
    await trio_until(lambda: a.send(gone.public, bytes(990)))
    b = await start(nursery, later)
    a.reach({later.public: ["nonsense", "/ip4/127.0.0.1/tcp/1", *b.addresses]})
    await trio_until(lambda: a.send(later.public, b"at last") or later.public in a.connected)
    await expect(b, PeerUp(a.public_key), Message(a.public_key, b"at last"))


async def test_when_both_call_at_once_one_connection_stays_and_all_arrives(nursery: trio.Nursery) -> None:
    for _ in range(5):
        a, b = await visitors(nursery, 2)
        assert a.send(b.public_key, b"from a")
        assert b.send(a.public_key, b"from b")
        for host, other, frame in ((a, b, b"from b"), (b, a, b"from a")):
            with trio.fail_after(5):
                while not isinstance(item := await host.inbox.receive(), Message):
                    pass
            assert item == Message(other.public_key, frame)
        await trio_until(lambda a=a, b=b: a.connected == {b.public_key} and b.connected == {a.public_key})  # type: ignore[misc]
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert [a.connected, b.connected] == [{b.public_key}, {a.public_key}]
        assert a.send(b.public_key, b"once more")
        with trio.fail_after(5):
            while await b.inbox.receive() != Message(a.public_key, b"once more"):
                pass


async def test_of_too_many_visits_the_least_recently_used_ends_never_one_that_is_kept(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_SECONDS", 0.1)
    kept = await start(nursery)
    a = await start(nursery, known=lambda peer: peer == kept.public_key, visits=Visits(2, 1_000))
    a.connect(kept.public_key, kept.addresses)
    await expect(a, PeerUp(kept.public_key))
    first, second, third = [await start(nursery) for _ in range(3)]
    a.reach({host.public_key: host.addresses for host in (first, second, third)})
    for host in (first, second):
        assert a.send(host.public_key, b"hello")
        await expect(host, PeerUp(a.public_key), Message(a.public_key, b"hello"))
    await trio.sleep(0.5)
    assert first.send(a.public_key, b"used")
    await trio.sleep(0.05)
    assert a.send(third.public_key, b"hello")
    await expect(third, PeerUp(a.public_key), Message(a.public_key, b"hello"))
    await trio_until(lambda: a.connected == {kept.public_key, first.public_key, third.public_key})


async def test_a_visit_that_is_not_used_ends_and_is_made_again(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_SECONDS", 0.1)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.5)
    a, b = await visitors(nursery, 2, visits=Visits(8, 10))
    assert a.send(b.public_key, b"one")
    await expect(b, PeerUp(a.public_key), Message(a.public_key, b"one"))
    for _ in range(8):
        await trio.sleep(0.2)
        assert a.send(b.public_key, b"used")
        await expect(b, Message(a.public_key, b"used"))
    await expect(b, PeerDown(a.public_key))
    assert a.send(b.public_key, b"two")
    await expect(b, PeerUp(a.public_key), Message(a.public_key, b"two"))


# -- versions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "talk"),
    [({1}, {1}, True), ({1}, {1, 2}, True), ({1, 2}, {1}, True), ({2, 3}, {1, 2}, True), ({1}, {2}, False), ({1, 3}, {2}, False)],
)
async def test_two_sides_talk_if_they_have_a_version_in_common_and_say_so_if_not(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str], here: set[int], there: set[int], talk: bool
) -> None:
    a, b = await start(nursery, versions=frozenset(here)), await start(nursery, versions=frozenset(there))
    said = ""

    def is_told(times: int) -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.count("no common protocol version") >= times

    b.connect(a.public_key, a.addresses)
    if talk:
        await expect(a, PeerUp(b.public_key))
        assert not is_told(1)
    else:
        await trio_until(lambda: is_told(2))
        await trio.sleep(6 * transport.FIRST_RETRY_SECONDS)
        assert not a.connected | b.connected
        assert not is_told(3), "once on each side"
