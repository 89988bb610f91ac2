"""Where the broker is and how to get in, the same for every process: a redis://, rediss:// or unix:// URL."""

import ssl
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis


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
            self._read(url)
        except (ValueError, TypeError, OSError):
            raise ValueError("the broker's URL must look like redis://[:password@]host:port or rediss://...") from None

    def _read(self, url: str) -> None:
        """As redis-py reads it, whose whole client need not be loaded for it."""
        parts, options = urlsplit(url), dict(parse_qsl(urlsplit(url).query))
        if parts.scheme not in ("redis", "rediss", "unix") or (parts.scheme == "unix" and not parts.path):
            raise ValueError("not a broker's")
        self.path = unquote(parts.path) if parts.scheme == "unix" else None
        self.host = unquote(parts.hostname or "localhost")
        self.port = parts.port or 6379
        user, password = unquote(parts.username or "default"), unquote(parts.password or "")
        self.hello = ("HELLO", "3", "AUTH", user, password) if password else ("HELLO", "3")
        authority = options.pop("ssl_ca_certs", None)
        self.context = ssl.create_default_context(cafile=authority) if parts.scheme == "rediss" else None
        options.pop("db", None)  # topics belong to no database
        if options:
            raise ValueError("unknown options")

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def packed(*words: str | bytes) -> bytes:
    """A command as it is sent."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows commands of one word only
    return command
