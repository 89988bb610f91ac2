"""What is known of a request wherever it is answered or logged: its id, and the language its sender reads."""

import re
import secrets
from contextvars import ContextVar

from structlog.contextvars import bind_contextvars

from gateway.languages import LANGUAGES, preferred

_FORM = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Asked:
    """A request. ``id``: the client's own, if it is well-formed, so that both sides' logs can be laid side by side."""

    __slots__ = ("_wishes", "id")

    def __init__(self, wished_id: bytes = b"", wishes: bytes = b"") -> None:
        self.id = wished_id.decode() if _FORM.fullmatch(wished_id) else secrets.token_hex(16)
        self._wishes = wishes

    @property
    def language(self) -> str:
        return preferred(self._wishes.decode("latin-1")) if self._wishes else LANGUAGES[0]


_ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)


def begin(request: Asked) -> None:
    """From here on this task, and what it logs, is about a request."""
    _ASKED.set(request)
    bind_contextvars(request_id=request.id)


def now_asked() -> Asked:
    """The request this task is about."""
    return _ASKED.get() or Asked()
