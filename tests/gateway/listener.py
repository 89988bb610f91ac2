"""Somebody who listens to the stream of a person's events."""

import json
import socket
import threading
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from tests.person import Person
from tests.waiting import until


class Told(NamedTuple):
    """As it came: the fields of one server-sent event."""

    id: str
    event: str
    data: Any


class Listener:
    """Listens from the beginning, in a thread, until closed or the stream ends.

    Attributes:
        told: what has come. comments: how many lines of comment.
        ended: the server has ended the stream, as HTTP wants it.
    """

    def __init__(self, person: Person, last_event_id: str | None = None, token: str | None = None, **parameters: str) -> None:
        self.told: list[Told] = []
        self.comments = 0
        self.ended = False
        self._thread: threading.Thread | None = None
        headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": person.http.headers["Authorization"]}
        headers |= {"Last-Event-ID": last_event_id} if last_event_id else {}
        self._http = httpx.Client(base_url=person.http.base_url, timeout=60, headers=headers)
        request = self._http.build_request("GET", "/v1/events", params=parameters)
        self.response = self._http.send(request, stream=True)
        if self.response.status_code != 200:
            self.response.read()
            return
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        until(lambda: self.comments, "the stream's first comment")

    def wait(self, count: int) -> list[Told]:
        """All that has come, once it is as much."""
        return until(lambda: self.told if len(self.told) >= count else [], f"{count} events, not {len(self.told)}")

    def close(self) -> None:
        if self._thread is not None:
            stream = self.response.extensions["network_stream"]
            with suppress(OSError):  # it has ended
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            self._thread.join()
        self._http.close()

    def _listen(self) -> None:
        fields = dict[str, str]()
        with suppress(httpx.HTTPError, httpx.StreamError, OSError):
            for line in self.response.iter_lines():
                name, _, value = line.partition(":")
                if line and not name:
                    self.comments += 1
                elif line:
                    fields[name] = value.strip()
                elif "data" in fields:
                    self.told.append(Told(fields["id"], fields["event"], json.loads(fields["data"])))
                    fields = {}
            self.ended = True
