"""The page of a fog node over HTTP: three files, and what they draw. Nothing of it comes from elsewhere.

/            the page
/overview    what it draws, as JSON
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from functools import partial
from importlib import resources
from threading import Lock

from edgemw.app.overview import Overview, View, document
from edgemw.telemetry.exporter import JSON, Answer

NEWS_S = 1.0
"""However many look, it is put together once in that time."""
LATE_S = 8.0
_HERE = resources.files("edgemw.app.page")
FILES = {
    "/": ("text/html; charset=utf-8", _HERE.joinpath("index.html").read_bytes),
    "/page.css": ("text/css; charset=utf-8", _HERE.joinpath("page.css").read_bytes),
    "/page.js": ("text/javascript; charset=utf-8", _HERE.joinpath("page.js").read_bytes),
}
"""By path: the content type, and what reads it."""
_LATE: Answer = (503, JSON, json.dumps({"error": f"the event loop has not answered for {LATE_S:g} s, or ends"}).encode())


class Page:
    """Answers browsers; from several threads."""

    def __init__(self, overview: Overview, loop: asyncio.AbstractEventLoop) -> None:
        """Show what `overview` knows, which lives in `loop`."""
        self._overview, self._loop = overview, loop
        self._lock = Lock()
        self._made_s, self._made, self._failed_s = float("-inf"), b"", float("-inf")
        self._looking: Future[View] | None = None
        self._closed = False

    @property
    def doors(self) -> Mapping[str, Callable[[str], Answer]]:
        """What answers which path; each is told the query."""
        files = {path: partial(_file, path) for path in FILES}
        return {**files, "/overview": self._document}

    def close(self) -> None:
        """Answer nobody any more; from the loop, which whoever waits for an answer waits for."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()

    def _document(self, query: str) -> Answer:
        if not self._lock.acquire(timeout=LATE_S):
            return _LATE
        try:
            now_s = time.monotonic()
            if now_s - self._failed_s < NEWS_S or self._closed:
                return _LATE
            if now_s - self._made_s > NEWS_S:
                self._made = self._put_together()
                self._made_s = time.monotonic()
            return 200, JSON, self._made
        except (TimeoutError, CancelledError):
            self._failed_s = time.monotonic()
            return _LATE
        finally:
            self._lock.release()

    def _put_together(self) -> bytes:
        """What there is to draw. Raises TimeoutError where the loop hangs, CancelledError where the node ends."""
        self._looking = asyncio.run_coroutine_threadsafe(self._overview.look(), self._loop)
        try:
            view = self._looking.result(LATE_S)
        finally:
            self._looking.cancel()
            self._looking = None
        return json.dumps(document(view), allow_nan=False).encode()


def _file(path: str, query: str) -> Answer:
    kind, read = FILES[path]
    return 200, kind, read()
