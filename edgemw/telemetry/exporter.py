"""What Prometheus, and whatever watches over the process, may ask a node by HTTP: a request in, an answer out, no socket.

/metrics                 of this node
/fleet, /fleet?shard=K/N what nodes below it have told, or one of N parts of that
/sd                      nodes below it that have an address of their own, for http_sd
/healthz                 whether this node is well
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import parse_qs

from edgemw.telemetry.fleet import FEWEST_S, Fleet
from edgemw.telemetry.observer import Observer
from edgemw.telemetry.service import TEXT_FORMAT

Answer = tuple[int, str, bytes]
JSON = "application/json"
_SHARD = re.compile(r"(\d{1,3})/(\d{1,3})\Z", re.ASCII)


class Exporter:
    """Answers scrapes; `handle` may be called from several threads."""

    def __init__(
        self,
        observer: Observer,
        health: Callable[[], tuple[bool, str]],
        fleet: Fleet | None = None,
        doors: Mapping[str, Callable[[str], Answer]] = MappingProxyType({}),
    ) -> None:
        """Answer for a node.

        Args:
            observer: has the metrics.
            health: whether the node is well, and why it is not.
            fleet: the nodes below; None where there can be none.
            doors: what answers other paths; each is told the query.
        """
        self._observer, self._health, self._fleet = observer, health, fleet
        self._began_s = time.monotonic()
        self._doors: dict[str, Callable[[str], Answer]] = {"/metrics": self._metrics, "/healthz": self._healthz}
        if fleet is not None:
            self._doors |= {"/fleet": self._fleet_text, "/sd": self._sd}
        self._doors |= doors

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Status, content type and body of the answer to one request."""
        place, _, query = path.partition("?")
        door = self._doors.get(place)
        if door is None:
            return _json(404, {"error": f"no such path: there are {', '.join(self._doors)}"})
        if method != "GET":
            return _json(405, {"error": "use GET here"})
        return door(query)

    def _metrics(self, query: str) -> Answer:
        return 200, TEXT_FORMAT, self._observer.render()

    def _healthz(self, query: str) -> Answer:
        healthy, reason = self._health()
        return _json(200 if healthy else 503, {"healthy": healthy, "reason": reason})

    def _fleet_text(self, query: str) -> Answer:
        assert self._fleet is not None
        asked = parse_qs(query, max_num_fields=8).get("shard", ["0/1"])[-1]
        match = _SHARD.match(asked)
        if match is None or not int(match[1]) < int(match[2]):
            return _json(400, {"error": "shard is K/N with K from 0 to N - 1, such as shard=0/4"})
        pieces = self._fleet.text(time.monotonic(), int(match[1]), int(match[2]))
        return 200, TEXT_FORMAT, b"".join([piece.encode() for piece in pieces])

    def _sd(self, query: str) -> Answer:
        assert self._fleet is not None
        targets = self._fleet.targets()
        if targets == b"[]" and time.monotonic() - self._began_s < FEWEST_S:
            return _json(503, {"error": "nobody was heard yet: the list that you have still holds"})
        return 200, JSON, targets


def _json(status: int, document: dict[str, bool | str]) -> Answer:
    return status, JSON, json.dumps(document).encode() + b"\n"
