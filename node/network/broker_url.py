"""Where the broker is and how to get in, the same for every process: a redis://, rediss:// or unix:// URL."""

import ssl
from typing import Any

import hiredis
from redis.connection import SSLConnection, parse_url


class BrokerUrl:
    """As text: without the password.

    Attributes:
        path: of a Unix socket, else None: then ``host`` and ``port`` are to be connected to, by TLS if there is a ``context``.
        hello: the command to begin with.
    """

    def __init__(self, url: str) -> None:
        """
        Raises:
            ValueError: ``url`` is none of these, has options that are not known, or names a certificate that is none. The text
                does not show it: it may hold a password.
        """
        try:
            self._read(dict(parse_url(url)))  # type: ignore[no-untyped-call]  # redis-py has no types there
        except (ValueError, TypeError, OSError):
            raise ValueError("the broker's URL must look like redis://[:password@]host:port or rediss://...") from None

    def _read(self, options: dict[str, Any]) -> None:
        options.pop("db", None)  # topics belong to no database
        is_tls = options.pop("connection_class", None) is SSLConnection
        self.path: str | None = options.pop("path", None)
        self.host: str = options.pop("host", "localhost")
        self.port: int = options.pop("port", 6379)
        user, password = options.pop("username", "default"), options.pop("password", None)
        self.hello = ("HELLO", "3") if password is None else ("HELLO", "3", "AUTH", user, password)
        authority = options.pop("ssl_ca_certs", None)
        self.context = ssl.create_default_context(cafile=authority) if is_tls else None
        if options:
            raise ValueError("unknown options")

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def packed(*words: str | bytes) -> bytes:
    """A command as it is sent."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows commands of one word only
    return command
