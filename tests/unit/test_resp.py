"""Reading RESP3: however the stream is cut the same comes out, what an independent reader says; and nothing large is kept."""

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.resp import MAX_ANSWER_BYTES, Answer, BrokerNonsense, Published, Reader

LIMIT = 100
LIMITS = {b"topic": LIMIT, b"other": 3}


def line(text: bytes) -> bytes:
    return text + b"\r\n"


def blob(body: bytes, kind: bytes = b"$") -> bytes:
    return line(kind + b"%d" % len(body)) + line(body)


def message(topic: bytes, body: bytes) -> bytes:
    return line(b">3") + blob(b"message") + blob(topic) + blob(body)


words = st.text("abc +:$>", max_size=8).map(str.encode)
scalars = (
    words.map(lambda word: line(b"+" + word))
    | st.integers(-(2**63), 2**63 - 1).map(lambda number: line(b":%d" % number))
    | st.binary(max_size=20).map(blob)
    | st.sampled_from([line(b"_"), line(b"#t"), line(b",1.5"), blob(b"txt:some", b"=")])
)


def aggregate(items: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    lists = st.lists(items, max_size=3).map(lambda some: line(b"*%d" % len(some)) + b"".join(some))
    maps = st.lists(st.tuples(words.map(blob), items), max_size=3, unique_by=lambda pair: pair[0]).map(
        lambda pairs: line(b"%%%d" % len(pairs)) + b"".join(key + value for key, value in pairs)
    )
    return lists | maps


answers = st.recursive(scalars, aggregate, max_leaves=8) | words.map(lambda word: line(b"-ERR " + word))
pushed = words.map(lambda word: line(b">3") + blob(b"subscribe") + blob(word) + line(b":1"))
topics = st.sampled_from([b"topic", b"other", b"nobody's"])
messages = st.builds(message, topics, st.binary(max_size=2 * LIMIT) | st.just(bytes(5000)))


def independently(stream: bytes) -> tuple[list[Published | Answer], int]:
    """What hiredis makes of it, and how many messages no topic allows."""
    reader, found, unwanted = hiredis.Reader(), list[Published | Answer](), 0
    reader.feed(stream)
    while (item := reader.gets()) is not False:
        match item:
            case hiredis.PushNotification():
                kind, topic, body = item
                if kind == b"message" and len(body) <= LIMITS.get(topic, 0):
                    found.append(Published(topic, body))
                unwanted += kind == b"message" and len(body) > LIMITS.get(topic, 0)
            case hiredis.ReplyError():
                found.append(Answer(str(item)))
            case _:
                found.append(Answer(None))
    return found, unwanted


@given(st.lists(answers | pushed | messages, max_size=12), st.integers(1, 40) | st.integers(1, 10_000))
def test_however_it_is_cut_it_is_what_another_reader_says(items: list[bytes], gulp: int) -> None:
    stream, reader = b"".join(items), Reader(LIMITS)
    found: list[Any] = [item for i in range(0, len(stream), gulp) for item in reader.feed(stream[i : i + gulp])]
    assert (found, reader.passed_over) == independently(stream)
    assert reader.size == 0


def test_of_a_message_larger_than_its_topic_allows_nothing_is_kept_and_the_next_is_read() -> None:
    reader, announced = Reader(LIMITS), 600 << 20
    assert reader.feed(message(b"topic", bytes(LIMIT))[:-1]) == []
    assert reader.feed(b"\n" + line(b">3") + blob(b"message") + blob(b"topic") + line(b"$%d" % announced)) == [
        Published(b"topic", bytes(LIMIT))
    ]
    chunk = bytes(1 << 20)
    for _ in range(600):
        assert reader.feed(chunk) == []
        assert reader.size == 0
    assert reader.feed(b"\r\n" + message(b"topic", b"small")) == [Published(b"topic", b"small")]
    assert reader.passed_over == 1


def test_a_topic_that_is_added_later_is_read_from_then_on() -> None:
    limits = {b"topic": LIMIT}
    reader = Reader(limits)
    assert reader.feed(message(b"late", b"x")) == []
    limits[b"late"] = 1
    assert reader.feed(message(b"late", b"x")) == [Published(b"late", b"x")]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        line(b"$%d" % (MAX_ANSWER_BYTES + 1)),
        line(b"*%d" % (MAX_ANSWER_BYTES + 1)),
        line(b"$-1"),
        b"+" + bytes(MAX_ANSWER_BYTES),
        line(b"*3000") + b":1\r\n" * 3000,
        line(b">3") + blob(b"message") + line(b"$4") + line(b"topic") + blob(b"x"),
        line(b">3") + blob(b"message") + blob(b"topic") + line(b"$3") + b"four\r\n",
        line(b">3") + blob(b"message") + blob(b"topic") + line(b"$99999999999"),
    ],
)
def test_what_is_not_the_protocol_or_beyond_its_bounds_ends_the_reading(said: bytes) -> None:
    reader = Reader(LIMITS)
    with pytest.raises(BrokerNonsense):
        reader.feed(said)


@pytest.mark.long
def test_whatever_a_broker_says_little_is_kept() -> None:
    reader = Reader(LIMITS)
    for piece in (line(b"*8000"), *[b":1\r\n"] * 8000):
        try:
            reader.feed(piece)
        except BrokerNonsense:
            break
        assert reader.size <= MAX_ANSWER_BYTES + len(piece)
    else:
        raise AssertionError("an answer of 32 KB was taken")
