"""Framing: any cut of the byte stream gives the same frames; limits hold; small frames overtake large ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.framing import PING, URGENT_BYTES, URGENT_RUN_BYTES, WRITE_BYTES, FrameDecoder, FrameTooLarge, SendQueue
from node.protocol.limits import MAX_FRAME_BYTES


def drain(queue: SendQueue) -> list[bytes]:
    return list(iter(queue.take, b""))


@given(st.lists(st.binary(min_size=1, max_size=200_000), max_size=8), st.integers(1, 9) | st.integers(1, 300_000))
def test_what_goes_in_comes_out_small_frames_first_however_the_stream_is_cut(frames: list[bytes], gulp: int) -> None:
    queue = SendQueue(limit=1 << 22)
    assert all(queue.put(frame) for frame in frames)
    assert queue.size == sum(4 + len(frame) for frame in frames)
    writes = drain(queue)
    assert queue.size == 0
    assert all(len(write) <= WRITE_BYTES for write in writes), "more than one Noise message takes"
    assert all(len(write) > WRITE_BYTES - 8 for write in writes[:-1])
    stream, decoder = PING + b"".join(writes) + PING, FrameDecoder()
    got = [frame for i in range(0, len(stream), gulp) for frame in decoder.feed(stream[i : i + gulp])]
    assert got == sorted(frames, key=lambda frame: len(frame) > URGENT_BYTES)


def test_a_frame_is_refused_at_its_length_before_any_of_its_bytes() -> None:
    length, ten = (11).to_bytes(4, "big"), (10).to_bytes(4, "big") + bytes(10)
    assert FrameDecoder(max_frame=10).feed(ten + PING + ten) == [bytes(10)] * 2
    for decoder, data in (
        (FrameDecoder(max_frame=10), length),
        (FrameDecoder(max_frame=10), ten + length),
        (FrameDecoder(), (MAX_FRAME_BYTES + 1).to_bytes(4, "big")),
    ):
        with pytest.raises(FrameTooLarge):
            decoder.feed(data)
    for frame in (b"", bytes(101)):
        with pytest.raises(ValueError, match="a frame has 1 to 100 bytes"):
            SendQueue(limit=1000, max_frame=100).put(frame)


def test_an_urgent_frame_slips_in_between_two_bulk_frames() -> None:
    queue = SendQueue(limit=1 << 20)
    assert queue.put(b"1" * 100_000)
    assert queue.put(b"2" * 100_000)
    first = queue.take()
    assert queue.put(b"vote")
    frames = FrameDecoder().feed(first + b"".join(drain(queue)))
    assert frames == [b"1" * 100_000, b"vote", b"2" * 100_000]


def test_a_flood_of_urgent_frames_does_not_starve_a_bulk_frame() -> None:
    queue, bulk = SendQueue(limit=8 << 20), b"bulk" * URGENT_BYTES
    assert queue.put(bulk)
    while queue.put(bytes(URGENT_BYTES)):
        pass
    frames = FrameDecoder().feed(b"".join(drain(queue)))
    assert sum(map(len, frames[: frames.index(bulk)])) <= URGENT_RUN_BYTES


def test_a_full_queue_refuses_and_takes_again_once_drained() -> None:
    queue = SendQueue(limit=1000)
    assert [queue.put(frame) for frame in (bytes(496), bytes(496), b"x")] == [True, True, False]
    assert queue.size == 1000
    drain(queue)
    assert queue.put(b"x")
