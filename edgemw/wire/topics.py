"""The topic tree, in one place: built and parsed by the same table.

    em1/{net}/{domain}/{channel}/...

`domain` is the id of the fog node that owns it: a node publishes `up` into its parent's domain, so a tree of any depth is
a set of domains of one shape, and access rules, bridges and code do not depend on the depth. At most 7 levels and 256 bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgemw.core.errors import WireError
from edgemw.core.ids import interned, valid_id

EVERYBODY = "all"  # stands where a node id stands; no node may have it
_NODES = frozenset({"node", "fog", "asker"})  # levels that are ids of nodes
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Channel:
    """One kind of topic.

    Attributes:
        name: how code calls it.
        pattern: the levels after `em1/{net}/{domain}/`.
        retained: the broker keeps the last publication.
        writer: who publishes: "node" (the one in the topic), "fog" (the domain's owner) or "anyone" that the broker lets.
        reader: who subscribes, for the documents.
        carries: the message kinds, by their names in `messages.py`.
        about: one line for the documents.
    """

    name: str
    pattern: str
    retained: bool
    writer: str
    reader: str
    carries: tuple[str, ...]
    about: str

    @functools.cached_property
    def places(self) -> tuple[str, ...]:
        """Names of the levels that vary."""
        return tuple(_PLACE.findall(self.pattern))

    @functools.cached_property
    def levels(self) -> tuple[tuple[str, bool], ...]:
        """The text of each level, or its name where it varies, and whether it does."""
        return tuple((level.strip("{}"), level.startswith("{")) for level in self.pattern.split("/"))


CHANNELS: tuple[Channel, ...] = (
    Channel("presence", "st/{node}", True, "node", "anyone", ("Presence",), "Birth, and last will, of a node in its domain."),
    Channel(
        "update",
        "up/{node}/{task}",
        False,
        "node",
        "fog",
        ("Update", "Offer", "MaskKeys", "Shares", "Revealed"),
        "An update, or the offer of a large one; what masks need of a device.",
    ),
    Channel("chunk", "in/{fog}/{node}/{transfer}", False, "node", "fog", ("Chunk",), "Chunks of an update that was granted."),
    Channel(
        "reply",
        "dn/{node}/{task}",
        False,
        "fog",
        "node",
        ("Ack", "Outcome", "Grant", "Group", "Shares", "Unmask", "NoGroup"),
        "Answers to one node's updates; what it needs to mask them.",
    ),
    Channel("release", "dn/all/{task}/release", True, "fog", "node", ("ReleaseManifest",), "The current release of a task."),
    Channel("task", "dn/all/{task}/task", True, "anyone", "node", ("TaskManifest",), "The current bundle of a task."),
    Channel("blob", "blob/{digest}/{index}", True, "anyone", "node", ("Chunk",), "Chunks of a bundle or release, by content."),
    Channel("ask", "rq/status/{node}", False, "node", "anyone", ("StatusRequest",), "Asks every node of a domain how it is."),
    Channel("answer", "rs/{asker}/{node}", False, "node", "anyone", ("Status",), "A node's answer to the asker."),
    Channel("predict", "pq/{node}/{task}", False, "node", "fog", (), "A question to a prediction service, whose domain it is."),
    Channel("prediction", "pa/{node}/{task}", False, "fog", "node", (), "The answer: Open Inference Protocol, see serving.md."),
    Channel("telemetry", "tm/{node}", False, "node", "fog", ("Telemetry",), "What a node tells about itself and its machine."),
    Channel("event", "ev/{node}/{task}", False, "fog", "anyone", ("RoundReport",), "What the top says after each round."),
)
_BY_NAME = {channel.name: channel for channel in CHANNELS}
_OF_SHAPE: dict[tuple[str, int], list[Channel]] = {}  # by the first level after the domain, and how many there are in all
for _channel in CHANNELS:
    _OF_SHAPE.setdefault((_channel.levels[0][0], 3 + len(_channel.levels)), []).append(_channel)


@dataclass(frozen=True, slots=True)
class Topic:
    """A parsed topic: its channel and the values of its levels."""

    net: str
    domain: str
    channel: str
    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        """The value of a level, such as `topic["node"]`."""
        return self.values[name]


def build(net: str, domain: str, channel: str, **values: str) -> str:
    """The topic, or the topic filter where a value is "+".

    Raises:
        ValueError: a value cannot stand in its level, or the values are not those of the channel.
    """
    kind = _BY_NAME[channel]
    if len(values) != len(kind.places) or any(place not in values for place in kind.places):
        raise ValueError(f"{channel} has the levels {', '.join(kind.places)}")
    for place, value in (("net", net), ("domain", domain), *values.items()):
        if value != "+" and not _fits(place, value):
            raise ValueError(f"{value!r} cannot stand in a topic as {place}")
    return f"em1/{net}/{domain}/" + kind.pattern.format_map(values)


@functools.lru_cache(2048)  # a node hears and says the same topics over and over
def parse(text: str) -> Topic:
    """The inverse of `build`. Raises WireError for a topic that is not in the table."""
    levels = text.split("/", 8)
    if len(levels) < 5 or levels[0] != "em1" or not (_fits("net", levels[1]) and _fits("domain", levels[2])):
        raise WireError("topic", text[:80])
    for channel in _OF_SHAPE.get((levels[3], len(levels)), ()):
        values = _match(channel.levels, levels[3:])
        if values is not None:
            return Topic(interned(levels[1]), interned(levels[2]), channel.name, values)
    raise WireError("topic", text[:80])


def carried(channel: str) -> tuple[str, ...]:
    """Names of the message kinds that may stand on a channel."""
    return _BY_NAME[channel].carries


def writer(topic: Topic) -> str | None:
    """The node that alone may write to a topic; None where the broker's access rules alone decide."""
    kind = _BY_NAME[topic.channel].writer
    if kind == "fog":
        return topic.domain
    return topic["node"] if kind == "node" else None


def _fits(place: str, value: str) -> bool:
    return valid_id(value) and not (value == EVERYBODY and (place == "domain" or place in _NODES))


def _match(pattern: tuple[tuple[str, bool], ...], levels: list[str]) -> dict[str, str] | None:
    values = {}
    for (name, varies), level in zip(pattern, levels, strict=True):
        if not varies:
            if name != level:
                return None
        elif not _fits(name, level):
            return None
        else:
            values[name] = interned(level)
    return values
