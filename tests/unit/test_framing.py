"""Framing: any cut of the byte stream gives the same frames; limits hold; small frames overtake large ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.framing import PING, URGENT_BYTES, URGENT_RUN_BYTES, WRITE_BYTES, FrameDecoder, FrameTooLarge, SendQueue
from node.protocol.limits import MAX_FRAME_BYTES


def wire(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def drain(queue: SendQueue) -> list[bytes]:
    writes = []
    while data := queue.take():
        writes.append(data)
    return writes


def test_a_stream_cut_at_every_byte_gives_the_same_frames() -> None:
    frames = [b"a", b"second", b"x" * 300]
    stream = wire(frames[0], b"", frames[1], frames[2])
    for cut in range(len(stream) + 1):
        decoder = FrameDecoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == frames
    decoder = FrameDecoder()
    assert [frame for i in range(len(stream)) for frame in decoder.feed(stream[i : i + 1])] == frames


def test_pings_carry_nothing() -> None:
    assert FrameDecoder().feed(PING + wire(b"x") + PING) == [b"x"]


def test_a_frame_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    assert FrameDecoder(max_frame=10).feed(wire(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(FrameTooLarge):
        FrameDecoder(max_frame=10).feed(wire(b"x" * 11))


def test_an_oversize_frame_is_refused_at_its_length_before_any_of_its_bytes() -> None:
    with pytest.raises(FrameTooLarge):
        FrameDecoder().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(FrameTooLarge):
        FrameDecoder().feed(wire(b"good") + b"\xff\xff\xff\xff")


def test_no_write_is_larger_than_a_noise_message_takes() -> None:
    queue = SendQueue(limit=1 << 20)
    for _ in range(10):
        assert queue.put(bytes(100))
        assert queue.put(bytes(100_000))
    writes = drain(queue)
    assert max(map(len, writes)) <= WRITE_BYTES
    assert all(len(write) > WRITE_BYTES - 8 for write in writes[:-1])


def test_urgent_frames_overtake_bulk_frames_and_each_kind_keeps_its_order() -> None:
    queue = SendQueue(limit=1 << 20)
    bulk = [bytes([i]) * (URGENT_BYTES + 1) for i in range(3)]
    urgent = [bytes([i]) * 10 for i in range(3)]
    for frame in bulk + urgent:
        assert queue.put(frame)
    assert FrameDecoder().feed(b"".join(drain(queue))) == urgent + bulk


def test_an_urgent_frame_slips_in_between_two_bulk_frames() -> None:
    queue = SendQueue(limit=1 << 20)
    assert queue.put(b"1" * 100_000)
    assert queue.put(b"2" * 100_000)
    first = queue.take()
    assert queue.put(b"vote")
    frames = FrameDecoder().feed(first + b"".join(drain(queue)))
    assert frames == [b"1" * 100_000, b"vote", b"2" * 100_000]


def test_a_flood_of_urgent_frames_does_not_starve_a_bulk_frame() -> None:
    queue = SendQueue(limit=8 << 20)
    assert queue.put(b"bulk" * URGENT_BYTES)
    while queue.put(bytes(URGENT_BYTES)):
        pass
    frames = FrameDecoder().feed(b"".join(drain(queue)))
    before = sum(map(len, frames[: frames.index(b"bulk" * URGENT_BYTES)]))
    assert before <= URGENT_RUN_BYTES


def test_a_full_queue_refuses_and_takes_again_once_drained() -> None:
    queue = SendQueue(limit=1000)
    assert queue.put(bytes(496))
    assert queue.put(bytes(496))
    assert not queue.put(b"x")
    assert queue.size == 1000
    drain(queue)
    assert queue.size == 0
    assert queue.put(b"x")


@pytest.mark.parametrize("frame", [b"", bytes(101)])
def test_a_frame_nobody_would_read_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="a frame has 1 to 100 bytes"):
        SendQueue(limit=1000, max_frame=100).put(frame)


@given(st.lists(st.binary(min_size=1, max_size=200_000), max_size=8), st.integers(1, 300_000))
def test_what_goes_in_comes_out(frames: list[bytes], gulp: int) -> None:
    queue = SendQueue(limit=1 << 22)
    assert all(queue.put(frame) for frame in frames)
    stream = b"".join(drain(queue))
    decoder = FrameDecoder()
    got = [frame for i in range(0, len(stream), gulp) for frame in decoder.feed(stream[i : i + gulp])]
    assert got == [f for f in frames if len(f) <= URGENT_BYTES] + [f for f in frames if len(f) > URGENT_BYTES]
