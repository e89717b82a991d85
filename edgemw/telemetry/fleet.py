"""What nodes below a fog node tell of themselves, told again to Prometheus: for devices that have no address.

No time stamps: a series ends when its device falls silent, and Prometheus notices at its next scrape. A device is silent when its
broker says so (last will), or after three of its intervals, at least 45 s. `edgemw_device_up` 0 and the time of its last message
stay for a day; who was stopped on purpose is forgotten. A message counts once and in order, by the life of its node and its
number in it: what the broker delivers again, or somebody replays, is rejected, as is a counter that goes backwards in a life.

A line is made when its message comes, so that a scrape only puts lines together: 10 000 devices are text in hundredths of a
second, and nothing waits for it.

Source: staleness and time stamps: Prometheus documentation, "Writing exporters".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from threading import Lock
from zlib import crc32

from edgemw.telemetry.labels import Bounded
from edgemw.wire.messages import Frame, Presence, Telemetry
from edgemw.wire.readings import READINGS

FEWEST_S, INTERVALS = 45.0, 3.0
LONGEST_INTERVAL_S = 3600.0
KEPT_S = 86400.0
SWEEP_S = 1.0
MOST_PORT = 65535
UP, SEEN = "edgemw_device_up", "edgemw_device_last_seen_timestamp_seconds"
_METRICS = tuple((metric, tuple(readings)) for metric, readings in groupby(READINGS, lambda reading: reading.metric))
_COUNTERS = tuple(reading.name for reading in READINGS if reading.kind == "counter")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):([1-9][0-9]{0,4})\Z")


@dataclass(slots=True)
class _Child:
    """A node below: its last word, and the lines that say it, one place for each metric."""

    boot: int
    seq: int
    labels: str
    site: str = ""
    address: str = ""
    up: bool = True
    heard_s: float = 0.0
    seen_s: float = 0.0
    until_s: float = float("inf")
    wait_s: float = 0.0
    highest: dict[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


class Fleet:
    """The nodes below. Its methods may be called from several threads.

    Attributes:
        messages: of telemetry that came.
        expired: nodes that fell silent without a word.
        rejected: messages that were not counted, by why.
        moves: how often `targets` has changed.
    """

    def __init__(self, most: int) -> None:
        """Begin with nobody.

        Args:
            most: nodes that are kept; of more, those go that have been away longest, and else the newest is rejected.
        """
        self._most = most
        self._children: dict[str, _Child] = {}
        self._lock = Lock()
        self._swept_s = float("-inf")
        self._site, self._source = Bounded(256), Bounded(16)
        self.messages = self.expired = self.moves = 0
        self.rejected: Counter[str] = Counter()

    def take(self, frame: Frame, now_s: float, wall_s: float) -> None:
        """Take what a node says of itself; other messages are left alone.

        Args:
            now_s: by a clock that never goes back.
            wall_s: seconds since 1970.
        """
        with self._lock:
            match frame.message:
                case Telemetry() as message:
                    reason = self._telemetry(frame, message, now_s, wall_s)
                    self.messages += 1
                    if reason:
                        self.rejected[reason] += 1
                case Presence() as presence:
                    self._presence(frame, presence, now_s, wall_s)

    def _telemetry(self, frame: Frame, message: Telemetry, now_s: float, wall_s: float) -> str:
        """Why a message is rejected; "" where it is not."""
        child = self._children.get(frame.node)
        if child is None:
            if not self._room(now_s):
                return "full"
            child = _Child(frame.boot, -1, "")
        if (frame.boot, frame.seq) <= (child.boot, child.seq):
            return "old"
        source = self._source(message.source) if message.source else "none"
        counters = _counters(message.readings, source)
        highest = child.highest if frame.boot == child.boot else {}
        if any(value < highest.get(name, 0.0) for name, value in counters.items()):
            return "backwards"
        self._children[frame.node] = child
        child.boot, child.seq, child.up = frame.boot, frame.seq, True
        child.highest = highest | counters
        child.site = self._site(message.site) if message.site else ""
        match = _ADDRESS.match(message.address)
        address = message.address if match is not None and int(match[1]) <= MOST_PORT else ""
        self.moves += address != child.address
        child.address = address
        child.labels = f'device="{frame.node}",site="{child.site}"'
        child.heard_s, child.seen_s = now_s, wall_s
        child.wait_s = max(FEWEST_S, INTERVALS * min(message.interval_s, LONGEST_INTERVAL_S))
        child.until_s = now_s + child.wait_s
        child.lines = () if child.address else _lines(child.labels, source, message.readings)
        return ""

    def _presence(self, frame: Frame, presence: Presence, now_s: float, wall_s: float) -> None:
        child = self._children.get(frame.node)
        if child is None:
            if not self._room(now_s):
                return
            child = self._children[frame.node] = _Child(frame.boot, -1, f'device="{frame.node}",site=""', heard_s=now_s)
        if frame.boot < child.boot:
            return
        if frame.boot > child.boot:
            child.boot, child.seq, child.highest = frame.boot, -1, {}
        if presence.state == "offline":  # on purpose: nobody is missed
            self._forget(frame.node)
            return
        if presence.state != "online":
            self._silence(child)
            return
        if not child.up and child.wait_s:  # it has told before: it is to tell again
            child.until_s = now_s + child.wait_s
        child.up, child.heard_s, child.seen_s = True, now_s, wall_s

    def _silence(self, child: _Child) -> None:
        child.up, child.lines, child.until_s = False, (), float("inf")

    def _room(self, now_s: float) -> bool:
        """Whether one more can be kept, after whoever has been away longest has gone, if need be."""
        if len(self._children) < self._most:
            return True
        if now_s - self._swept_s < SWEEP_S:
            return False  # who is not known is not worth looking at everybody for each of its messages
        self._sweep(now_s)
        away = [node for node, child in self._children.items() if not child.up]
        if len(self._children) >= self._most and away:
            self._forget(min(away, key=lambda node: self._children[node].heard_s))
        return len(self._children) < self._most

    def _sweep(self, now_s: float) -> None:
        """Silence who has told nothing for too long, and forget who has been away for a day."""
        self._swept_s = now_s
        for node, child in list(self._children.items()):
            if child.until_s < now_s:
                self._silence(child)
                self.expired += 1
            if not child.up and now_s - child.heard_s > KEPT_S:
                self._forget(node)

    def _forget(self, node: str) -> None:
        self.moves += bool(self._children.pop(node).address)

    # -- for Prometheus

    def text(self, now_s: float, shard: int = 0, shards: int = 1) -> Iterator[str]:
        """The exposition, in pieces of one metric each, in Prometheus's text format 0.0.4.

        Args:
            now_s: by a clock that never goes back.
            shard, shards: only the nodes whose number is `shard`, from 0, where they are dealt out by their names.
        """
        with self._lock:
            self._sweep(now_s)
            children = [child for node, child in self._children.items() if shards == 1 or crc32(node.encode()) % shards == shard]
            states = [(child.labels, child.up, child.seen_s, child.lines) for child in children]
            counts = (
                ("edgemw_telemetry_messages_total", "Messages of telemetry that came.", self.messages),
                ("edgemw_telemetry_expired_total", "Devices that fell silent without a word.", self.expired),
            )
            rejected = sorted(self.rejected.items())
        for place, (metric, readings) in enumerate(_METRICS):
            lines = "".join([lines[place] for _, _, _, lines in states if lines])
            if lines:
                yield _head(metric, readings[0].kind, readings[0].about) + lines
        if states:
            yield _head(UP, "gauge", "1 while the device is heard.")
            yield "".join([f"{UP}{{{labels}}} {up:d}\n" for labels, up, _, _ in states])
            yield _head(SEEN, "gauge", "When the device was heard for the last time.")
            yield "".join([f"{SEEN}{{{labels}}} {seen!r}\n" for labels, _, seen, _ in states if seen])
        if shard == 0:
            for name, about, count in counts:
                yield _head(name, "counter", about) + f"{name} {count}\n"
            if rejected:
                yield _head("edgemw_telemetry_rejected_total", "counter", "Messages of telemetry that were not counted.")
                yield "".join(f'edgemw_telemetry_rejected_total{{reason="{reason}"}} {count}\n' for reason, count in rejected)

    def targets(self) -> bytes:
        """Nodes with an address, as Prometheus's http_sd and file_sd take them: always the whole list."""
        with self._lock:
            known = [(node, child.site, child.address) for node, child in self._children.items() if child.address]
        return json.dumps(
            [
                {"targets": [address], "labels": {"__meta_edgemw_device": node, "__meta_edgemw_site": site}}
                for node, site, address in sorted(known)
            ]
        ).encode()


def _head(metric: str, kind: str, about: str) -> str:
    return f"# HELP {metric} {about}\n# TYPE {metric} {kind}\n"


def _counters(readings: dict[str, float], source: str) -> dict[str, float]:
    """Those that only grow in a life; joules of another source are another counter."""
    return {f"energy {source}" if name == "energy" else name: readings[name] for name in _COUNTERS if name in readings}


def _lines(labels: str, source: str, readings: dict[str, float]) -> tuple[str, ...]:
    """The lines of a message, by metric; "" where it says nothing of one."""
    lines = []
    for metric, group in _METRICS:
        text = ""
        for reading in group:
            value = readings.get(reading.name)
            if value is None:
                continue
            more = f',source="{source}"' if reading.name == "energy" else f",{reading.labels}" if reading.labels else ""
            text += f"{metric}{{{labels}{more}}} {value!r}\n"
        lines.append(text)
    return tuple(lines)
