"""A broker's URL means what it means to everybody else's client."""

import pytest
from redis.connection import parse_url

from node.network.broker_url import BrokerUrl


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host",
        "redis://host:1234/5",
        "redis://host?db=5",
        "redis://:pass%2Fword%25@10.0.0.1:1",
        "redis://us%40er:secret@[::1]:1",
        "redis://user@host",
        "rediss://:secret@host",
        "unix:///run/bro%20ker.sock",
        "unix://user:secret@/run/broker.sock?db=1",
    ],
)
def test_what_it_says_is_read_as_redis_py_reads_it(url: str) -> None:
    told, read = dict(parse_url(url)), BrokerUrl(url)  # type: ignore[no-untyped-call]
    assert (read.path, read.host, read.port) == (told.get("path"), told.get("host", "localhost"), told.get("port", 6379))
    assert read.hello[3:] == ((told.get("username", "default"), told["password"]) if "password" in told else ())
    assert (read.context is not None) == url.startswith("rediss")


@pytest.mark.parametrize(
    "url", ["", "host:1", "http://host", "unix://", "redis://host:port", "redis://host:99999", "redis://h?x=1", "redis://["]
)
def test_what_is_none_is_a_clear_error(url: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        BrokerUrl(url)
