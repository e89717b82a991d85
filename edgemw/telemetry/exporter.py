"""/metrics for Prometheus and /healthz for whatever watches over the process: a request in, an answer out, no socket."""

from __future__ import annotations

import json
from collections.abc import Callable

from edgemw.telemetry.observer import Observer
from edgemw.telemetry.service import TEXT_FORMAT

Answer = tuple[int, str, bytes]
JSON = "application/json"


class Exporter:
    """Answers scrapes; `handle` may be called from several threads."""

    def __init__(self, observer: Observer, health: Callable[[], tuple[bool, str]]) -> None:
        """Answer for a node.

        Args:
            observer: has the metrics.
            health: whether the node is well, and why it is not.
        """
        self._observer, self._health = observer, health

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Status, content type and body of the answer to one request."""
        if path not in ("/metrics", "/healthz"):
            return _json(404, {"error": "no such path: there are /metrics and /healthz"})
        if method != "GET":
            return _json(405, {"error": "use GET here"})
        if path == "/metrics":
            return 200, TEXT_FORMAT, self._observer.render()
        healthy, reason = self._health()
        return _json(200 if healthy else 503, {"healthy": healthy, "reason": reason})


def _json(status: int, document: dict[str, bool | str]) -> Answer:
    return status, JSON, json.dumps(document).encode() + b"\n"
