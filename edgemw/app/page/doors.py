"""The page of a fog node over HTTP: three files, and what they draw. Nothing of it comes from elsewhere.

/            the page
/overview    what it draws, as JSON
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
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


class Page:
    """Answers browsers; from several threads."""

    def __init__(self, overview: Overview, loop: asyncio.AbstractEventLoop) -> None:
        """Show what `overview` knows, which lives in `loop`."""
        self._overview, self._loop = overview, loop
        self._lock = Lock()
        self._made_s, self._made = float("-inf"), b""

    @property
    def doors(self) -> Mapping[str, Callable[[str], Answer]]:
        """What answers which path; each is told the query."""
        files = {path: partial(_file, path) for path in FILES}
        return {**files, "/overview": self._document}

    def _document(self, query: str) -> Answer:
        with self._lock:
            if time.monotonic() - self._made_s > NEWS_S:
                looking: Future[View] = asyncio.run_coroutine_threadsafe(self._overview.look(), self._loop)
                try:
                    view = looking.result(LATE_S)
                except TimeoutError:
                    return 503, JSON, json.dumps({"error": f"the event loop has not answered for {LATE_S:g} s"}).encode()
                self._made = json.dumps(document(view), allow_nan=False).encode()
                self._made_s = time.monotonic()
            return 200, JSON, self._made


def _file(path: str, query: str) -> Answer:
    kind, read = FILES[path]
    return 200, kind, read()
