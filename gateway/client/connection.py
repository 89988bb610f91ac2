"""What is asked of a gateway, over HTTP. Its answers are believed as far as proofs go; a session lasts as long as a command."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.keystore import ownership
from gateway.proofs.form import MAX_PROOF_BYTES
from node.protocol.crypto import KeyPair

LONGEST_WAIT = 30
_TIMEOUT = 60.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class NoAnswer(Exception):
    """The gateway cannot be reached, or says nothing that makes sense; the text says which."""


class Refused(Exception):
    """The gateway says no: an HTTP status, its stable code, and why."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.status, self.code = status, code


class Connection:
    def __init__(self, gateway: str) -> None:
        """``gateway``: its URL. Raises ValueError: a password would go over the network in clear."""
        parts = urlsplit(gateway)
        if not parts.hostname or parts.username or (parts.scheme != "https" and parts.hostname not in _LOOPBACK):
            raise ValueError("a gateway's URL begins with https://, unless it is on this machine")
        self._http = httpx.Client(base_url=gateway, timeout=_TIMEOUT, trust_env=False)

    def get(self, path: str, **parameters: Any) -> bytes:
        """Raises NoAnswer, Refused."""
        return self._asked("GET", path, params=parameters)

    def read(self, path: str, **parameters: Any) -> Any:
        return _json(self.get(path, **parameters))

    def post(self, path: str, body: object, **parameters: Any) -> Any:
        return _json(self._asked("POST", path, params=parameters, json=body))

    @contextmanager
    def session(self, email: str, password: str, ask_code: Callable[[], str]) -> Iterator[None]:
        """Logged in. ``ask_code``: for a second factor, if there is one."""
        credentials = {"email": email, "password": password}
        try:
            tokens = self.post("/v1/auth/login", credentials)
        except Refused as refused:
            if refused.code != "code_required":
                raise
            tokens = self.post("/v1/auth/login", credentials | {"code": ask_code()})
        with self.bearer(field(tokens, "access_token")):
            try:
                yield
            finally:
                with suppress(NoAnswer, Refused):
                    self._asked("POST", "/v1/auth/logout", json={"refresh_token": field(tokens, "refresh_token")})

    @contextmanager
    def bearer(self, token: str) -> Iterator[None]:
        """An access token or an API key."""
        self._http.headers["Authorization"] = f"Bearer {token}"
        try:
            yield
        finally:
            del self._http.headers["Authorization"]

    def register(self, key: KeyPair, network: bytes, label: str) -> str:
        """Have the wallet of a key shown in one's account, with the proof of having the key. Returns the wallet's id."""
        user = field(self.read("/v1/me"), "id")
        signature = key.sign(ownership(network, user))
        body = {"label": label, "public_key": key.public.hex(), "signature": signature.hex()}
        return field(self.post("/v1/wallets", body), "id")

    def _asked(self, method: str, path: str, **options: Any) -> bytes:
        content = bytearray()
        try:
            with self._http.stream(method, path, **options) as answer:
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > MAX_PROOF_BYTES:
                        raise NoAnswer(f"{path}: an answer of more than {MAX_PROOF_BYTES} bytes")
        except httpx.HTTPError as error:
            raise NoAnswer(f"{path}: {error or type(error).__name__}") from None
        if answer.is_success:
            return bytes(content)
        try:
            problem = _json(content)
            refused = Refused(answer.status_code, str(problem["code"]), str(problem["detail"]))
        except (NoAnswer, KeyError, TypeError):
            raise NoAnswer(f"{path}: HTTP status {answer.status_code}") from None
        raise refused


def field(answer: Any, name: str) -> str:
    """A text in an answer. Raises NoAnswer when there is none."""
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, str):
        raise NoAnswer(f"the gateway's answer has no {name}")
    return found


def _json(content: bytes | bytearray) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        raise NoAnswer("the answer is not JSON") from None
