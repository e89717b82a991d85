"""Predictions on what sensors publish already: JSON in, picked by path; windows; JSON out. Publications in, publications out.

    {"temperature": 21.5, "state": "ON"} at zigbee2mqtt/kitchen  ->  a row of numbers  ->  the last `window` rows of that topic
    ->  x, in the shape of the task's input  ->  {"task": ..., "release": ..., "sample": 24, "outputs": [...], "class": 3, ...}

A row that lacks a field, or has something that is no number there, is left out and counted: a window never holds what nobody has
measured. Topics that match one filter have windows of their own.
"""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemw.core.bundle import LARGEST, Manifest
from edgemw.core.errors import EdgeError
from edgemw.serving.decision import class_of
from edgemw.serving.slot import Outputs, Served, Slot

MAX_PAYLOAD_BYTES = 64 << 10
MAX_TOPICS, MAX_VALUES, MAX_REASONS = 1024, 4_000_000, 64
TOPIC = "{topic}"
_WORDS = {"on": 1.0, "off": 0.0, "true": 1.0, "false": 0.0, "open": 1.0, "closed": 0.0, "yes": 1.0, "no": 0.0}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """What is read, and where predictions go.

    Attributes:
        name: in logs.
        task: whose model predicts.
        source: topic filter of the sensors.
        fields: paths into their JSON, such as "temperature" or "AM2301.Temperature" or "values.0".
        window: rows of a prediction.
        every: rows from one prediction to the next.
        target: topic of predictions; {topic} stands for the topic of the sensor.
    """

    name: str
    task: str
    source: str
    fields: tuple[str, ...]
    window: int
    every: int
    target: str


@dataclass(slots=True)
class _Window:
    rows: deque[list[float]]
    new: int = 0
    taken: int = 0


class Stream:
    """See the module.

    Attributes:
        rows: taken so far.
        left_out: publications that were no row.
        predictions: made.
    """

    def __init__(self, spec: StreamSpec, slots: Mapping[str, Slot]) -> None:
        """Predict from these slots."""
        self.spec, self._slots = spec, slots
        self._paths = [tuple(path.split(".")) for path in spec.fields]
        self._windows: dict[str, _Window] = {}
        self._most_topics = max(1, min(MAX_TOPICS, MAX_VALUES // (spec.window * len(spec.fields))))
        self._said: set[str] = set()
        self.rows = self.left_out = self.predictions = 0

    @property
    def fault(self) -> str:
        """Why no window makes a prediction with what is served now; empty where it does."""
        slot = self._slots.get(self.spec.task)
        return self._fault_with(slot.current if slot is not None else None)

    def _fault_with(self, served: Served | None) -> str:
        spec = self.spec
        if served is None:
            others = sorted(task for task, other in self._slots.items() if other.current is not None)
            what = f"; the store has {', '.join(others)}" if others else ""
            return f"there is no release of {spec.task} yet{what}"
        if as_input(np.zeros((spec.window, len(spec.fields))), served.manifest) is None:
            shape = list(served.manifest.input.shape)
            return f"{spec.window} rows of {len(spec.fields)} fields do not make the input of {spec.task}, which is {shape}"
        return ""

    def take(self, topic: str, payload: bytes) -> tuple[str, bytes] | None:
        """What to publish about a publication that matches the source, if anything yet."""
        row = _row(payload, self._paths)
        if isinstance(row, str):
            self.left_out += 1
            self._say(log.warning, "a publication was left out", row, topic)
            return None
        self.rows += 1
        window = self._window_of(topic)
        window.rows.append(row)
        window.new += 1
        window.taken += 1
        if len(window.rows) < self.spec.window or window.new < self.spec.every:
            return None
        body = self._predicted(window)
        if isinstance(body, str):
            self._say(log.error, "no prediction", body, topic)
            return None
        return self.spec.target.replace(TOPIC, topic), body

    def _window_of(self, topic: str) -> _Window:
        """That of a topic; where there are too many, that which was not used for the longest time is given up."""
        window = self._windows.pop(topic, None)
        if window is None:
            window = _Window(deque(maxlen=self.spec.window))
            if len(self._windows) >= self._most_topics:
                del self._windows[next(iter(self._windows))]
        self._windows[topic] = window
        return window

    def _predicted(self, window: _Window) -> bytes | str:
        """What to publish, or why there is nothing."""
        slot = self._slots.get(self.spec.task)
        served = slot.current if slot is not None else None
        x = as_input(np.array(window.rows), served.manifest) if served is not None else None
        if slot is None or served is None or x is None:
            return self._fault_with(served)
        manifest = served.manifest
        try:
            outputs, release = slot.serve(x[None], served)
        except EdgeError as error:
            return str(error)
        if not np.isfinite(outputs).all():
            return f"release {release} gives NaN or infinite outputs"
        window.new = 0
        self.predictions += 1
        said = {"task": self.spec.task, "release": release, "sample": window.taken, "outputs": outputs[0].tolist()}
        return json.dumps(said | _decision(outputs, manifest)).encode()

    def _say(self, tell: Callable[..., None], what: str, why: str, topic: str) -> None:
        """Once for each reason: a sensor that speaks every second would fill a disk."""
        if why not in self._said and len(self._said) < MAX_REASONS:
            self._said.add(why)
            tell("%s: %s", what, why, extra={"facts": {"stream": self.spec.name, "topic": topic}})


def as_input(rows: Any, manifest: Manifest) -> Any:
    """Rows [window, fields] in the shape of a task's input, or None where they do not make one.

    As they are; with fields first, as convolutions take them; or all in one row, by time.
    """
    shape = manifest.input.shape
    if rows.shape == shape:
        return rows
    if rows.T.shape == shape:
        return rows.T
    return rows.reshape(shape) if shape == (rows.size,) or (rows.size == 1 and math.prod(shape) == 1) else None


def _decision(outputs: Outputs, manifest: Manifest) -> dict[str, int | float]:
    """The likeliest class and its probability, where outputs are scores of classes."""
    if manifest.classes is None or outputs[0].size not in (1, manifest.classes):
        return {}
    label, score = class_of(outputs[0])
    return {"class": label, "score": round(score, 6)}


def _row(payload: bytes, paths: list[tuple[str, ...]]) -> list[float] | str:
    """The numbers at the paths, or why there are none."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return f"{len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are read"
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return "it is not JSON"
    row = []
    for path in paths:
        value = _number(_at(document, path))
        if value is None:
            return f"there is no number at {'.'.join(path)}"
        row.append(value)
    return row


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdecimal() and len(step) < 6 and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def _number(value: Any) -> float | None:
    """A finite number; truth values are 1 and 0, and so are the words that sensors have for them."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    if not isinstance(value, int | float) or abs(value) > LARGEST:
        return None
    return float(value) if math.isfinite(value) else None
