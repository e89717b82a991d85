"""The file of streams: which sensors are read, and where predictions go. `edgemw serve --streams FILE`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, product
from pathlib import Path
from typing import Literal

from edgemw.app.checks import check_id
from edgemw.core.config.loader import load
from edgemw.core.config.reading import read_text
from edgemw.core.config.schema import option, required
from edgemw.core.errors import ConfigError, LinkError
from edgemw.serving.slot import Slot
from edgemw.serving.stream import TOPIC, Stream, StreamSpec
from edgemw.transport.filters import check_filter, check_topic, overlap

MAX_WINDOW = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTable:
    """[[stream]]: one source of samples."""

    name: str = required(help="of logs, and of the sensor in Home Assistant", example='"kitchen"', check=check_id)
    task: str = required(help="whose model predicts", example='"activity"', check=check_id)
    source: str = required(help="topic of a sensor, or filter of several", example='"zigbee2mqtt/+"')
    fields: tuple[str, ...] = required(
        help="paths into its JSON, in the order of the model", example='["temperature", "AM2301.Humidity"]'
    )
    window: int = option(1, help="samples in a prediction", min=1, max=MAX_WINDOW)
    every: int = option(1, help="samples from one prediction to the next", min=1, max=MAX_WINDOW)
    target: str = required(help="topic of predictions; {topic} is that of the sensor", example='"edgemw/{topic}"')
    home_assistant: str = option(
        "", help="prefix of Home Assistant's discovery topics; empty: no sensor there", example='"homeassistant"'
    )

    def __post_init__(self) -> None:
        wild = bool(set(self.source) & set("+#"))
        if not _passes(check_filter, self.source):
            raise ConfigError("is no topic filter: '+' fills a level, '#' is the last level", key="source")
        for key in ("target", "home_assistant"):
            text = getattr(self, key)
            if text and not _passes(check_topic, text):
                raise ConfigError("is no topic: it has no wildcards", key=key)
        if not self.target:
            raise ConfigError("is empty", key="target")
        if set(self.target.replace(TOPIC, "")) & set("{}"):
            raise ConfigError(f"has braces that are not {TOPIC}", key="target")
        if not self.fields or not all(all(path.split(".")) for path in self.fields):
            raise ConfigError("names paths such as temperature or AM2301.Humidity", key="fields")
        if wild and TOPIC not in self.target:
            raise ConfigError(f"several sensors would speak at one topic: put {TOPIC} into it", key="target")
        if wild and self.home_assistant:
            raise ConfigError("needs a source without wildcards: a sensor in Home Assistant has one topic", key="home_assistant")
        if self.source.startswith("$share/") or overlap(self.source, "em1/+/+/pq/#"):
            raise ConfigError("is not of sensors: questions of edgemw would match it too, or it is shared", key="source")


def _passes(check: Callable[[str, str], None], text: str) -> bool:
    try:
        check(text, "")
    except LinkError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsFile:
    """The file of streams."""

    schema: Literal[1] = option(1, help="version of this file's format")
    stream: tuple[StreamTable, ...] = required(help="what is read")

    def __post_init__(self) -> None:
        names = [table.name for table in self.stream]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two streams are called {twice!r}", key="stream")
        for one, other in combinations(self.stream, 2):
            if one.source != other.source and overlap(one.source, other.source):
                text = f"{one.source} and {other.source} match the same topics, which a broker would bring twice"
                raise ConfigError(text, key="stream")
        for one, other in product(self.stream, self.stream):
            if overlap(other.source, one.target.replace(TOPIC, one.source)):
                text = f"{one.target}, the target of {one.name}, is a topic that {other.name} reads as samples"
                raise ConfigError(text, key="stream")


def load_streams(path: Path) -> tuple[StreamTable, ...]:
    """Read the file. Raises ConfigError for what it cannot mean."""
    return load(StreamsFile, read_text(path), str(path), cwd=Path.cwd()).value.stream


def streams_of(tables: Sequence[StreamTable], slots: Mapping[str, Slot]) -> list[Stream]:
    """The streams, on these slots."""
    names = [each.name for each in fields(StreamSpec)]
    return [Stream(StreamSpec(**{name: getattr(table, name) for name in names}), slots) for table in tables]


def discovery_of(table: StreamTable, node: str) -> tuple[str, bytes] | None:
    """What tells Home Assistant of a stream (developers.home-assistant.io, MQTT discovery): a retained publication, or None."""
    if not table.home_assistant:
        return None
    identity = f"{node}_{table.name}".replace("-", "_")
    target = table.target.replace(TOPIC, table.source)
    template = "{{ value_json.class if value_json.class is defined else value_json.outputs[0] }}"
    config = {
        "name": table.name,
        "unique_id": f"edgemw_{identity}",
        "state_topic": target,
        "value_template": template,
        "json_attributes_topic": target,
        "device": {"identifiers": [f"edgemw_{node.replace('-', '_')}"], "name": node, "manufacturer": "edgemw"},
    }
    return f"{table.home_assistant}/sensor/edgemw_{identity}/config", json.dumps(config).encode()
