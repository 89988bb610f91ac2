"""Whom a bearer token speaks for: an access token its session's user, an API key its owner, as far as its scopes go.

It is asked for each request, so all it needs is in memory: what has ended is refused from that moment on.
"""

import math
import time
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import jwt

from gateway.problems import Problem

KEY_PREFIX = "spk_"
Scope = Literal["read", "payments", "checkout", "webhooks"]
"""What an API key may do."""
_MAX_CHECKED = 10_000
"""Access tokens whose signature need not be checked again."""


class Caller(NamedTuple):
    """``session``: the login's, or the API key's id. ``until``: seconds since the Unix epoch. ``scopes``: None: all."""

    user: str
    session: str
    until: float
    scopes: frozenset[str] | None = None


def api_key_caller(user_id: str, key_id: str, scopes: str) -> Caller:
    """``scopes``: with spaces between them."""
    return Caller(user_id, key_id, math.inf, frozenset(scopes.split()))


class Tokens:
    """Makes access tokens (JWT) and knows every bearer token that is good.

    Attributes:
        lifetime: of access tokens, seconds.
        former: secrets whose signatures are good, too, while the secret is changed.
        keys: API keys, by the SHA-256 of each.
    """

    def __init__(self, secret: bytes, lifetime: int) -> None:
        self._secret, self.lifetime = secret, lifetime
        self.former: tuple[bytes, ...] = ()
        self._checked: OrderedDict[bytes, Caller] = OrderedDict()
        self._ended: dict[str, float] = {}
        self.keys: dict[bytes, Caller] = {}

    def make(self, user: str, session: str) -> str:
        """An access token."""
        now = int(time.time())
        return jwt.encode({"sub": user, "sid": session, "iat": now, "exp": now + self.lifetime}, self._secret, "HS256")

    def end(self, session: str, until: float) -> None:
        """Refuse a session's access tokens, the last of which is good until then, from now on."""
        self._ended[session] = until

    def drop_old(self) -> None:
        """Forget sessions whose access tokens have expired."""
        now = time.time()
        self._ended = {session: until for session, until in self._ended.items() if until >= now}

    def forget_keys(self, user: str) -> None:
        """Refuse a user's API keys from now on."""
        for name in [name for name, caller in self.keys.items() if caller.user == user]:
            del self.keys[name]

    def user_of(self, token: str, *scopes: str) -> str:
        """See ``caller``."""
        return self.caller(token, *scopes).user

    def caller(self, token: str, *scopes: str) -> Caller:
        """Who sends a token. An API key must have one of ``scopes``.

        Raises:
            Problem: 401, not good or not any more; 403, an API key that may not do this.
        """
        name = sha256(token.encode(errors="replace")).digest()
        caller = self._checked.get(name)
        if caller is None or caller.until <= time.time():
            caller = self._api_key(name, scopes) if token.startswith(KEY_PREFIX) else self._check(name, token)
        if caller.session in self._ended:
            raise Problem(401, "session_ended", "this session has ended; log in again")
        return caller

    def _check(self, name: bytes, token: str) -> Caller:
        try:
            claims = self._claims(token)
        except jwt.ExpiredSignatureError:
            raise Problem(401, "token_expired", "the access token has expired; refresh it") from None
        except jwt.InvalidTokenError:
            raise Problem(401, "invalid_token", "the access token is not valid") from None
        caller = self._checked[name] = Caller(str(claims["sub"]), str(claims["sid"]), float(claims["exp"]))
        if len(self._checked) > _MAX_CHECKED:
            self._checked.popitem(last=False)
        return caller

    def _claims(self, token: str) -> dict[str, Any]:
        """Raises jwt.InvalidTokenError."""
        for secret in (self._secret, *self.former):
            with suppress(jwt.InvalidSignatureError):
                return jwt.decode(token, secret, ["HS256"], options={"require": ["exp", "sub", "sid"]})
        raise jwt.InvalidSignatureError("no secret here has signed it")

    def _api_key(self, name: bytes, scopes: tuple[str, ...]) -> Caller:
        caller = self.keys.get(name)
        if caller is None or caller.scopes is None:
            raise Problem(401, "invalid_token", "this API key is not valid")
        if not scopes:
            raise Problem(403, "api_key_not_allowed", "this cannot be done with an API key: log in")
        if caller.scopes.isdisjoint(scopes):
            raise Problem(403, "insufficient_scope", f"this API key lacks the scope {scopes[0]}")
        return caller
