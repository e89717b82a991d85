"""Topic filters: which are well formed, and what they match (MQTT 5.0, section 4.7)."""

from __future__ import annotations

import functools
from itertools import zip_longest

from edgemw.core.errors import LinkError

MAX_TOPIC_BYTES = 65535
MAX_KNOWN_CHARS = 256  # as long as our own topics are


def check_topic(topic: str, where: str) -> None:
    """Refuse a topic that no broker takes.

    Raises:
        LinkError: it is empty, too long, or holds a wildcard or a NUL.
    """
    is_topic = _is_topic if len(topic) <= MAX_KNOWN_CHARS else _is_topic.__wrapped__
    if not is_topic(topic):
        hint = f"1 to {MAX_TOPIC_BYTES} bytes of UTF-8 without '+', '#' and NUL are expected"
        raise LinkError(f"topic {topic[:80]!r} was refused", where=where, hint=hint)


@functools.lru_cache(1024)  # the same ones are published to over and over
def _is_topic(topic: str) -> bool:
    return 0 < len(topic.encode()) <= MAX_TOPIC_BYTES and not set(topic) & set("+#\0")


def check_filter(topic_filter: str, where: str) -> None:
    """Refuse a malformed topic filter.

    Raises:
        LinkError: it is empty or too long, '+' does not fill a level, or '#' is not the last one.
    """
    levels = topic_filter.split("/")
    has_length = 0 < len(topic_filter.encode()) <= MAX_TOPIC_BYTES
    wildcards_alone = all(level in ("+", "#") or not set(level) & set("+#\0") for level in levels)
    if not has_length or not wildcards_alone or "#" in levels[:-1]:
        hint = "'+' fills a level, '#' is the last level"
        raise LinkError(f"topic filter {topic_filter[:80]!r} was refused", where=where, hint=hint)


def overlap(one: str, other: str) -> bool:
    """Whether a topic can match both filters."""
    pairs = zip_longest(one.split("/"), other.split("/"))
    for a, b in pairs:
        if "#" in (a, b):  # also for the level above it
            return True
        if None in (a, b):
            return False
        if a != b and "+" not in (a, b):
            return False
    return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a publication on the topic is for the filter; `$` topics want their first level spelled out."""
    if len(topic) > MAX_KNOWN_CHARS:  # anybody may publish on a long one, and what is remembered has to stay small
        return _matches(topic_filter, topic)
    return _known_matches(topic_filter, topic)


def _matches(topic_filter: str, topic: str) -> bool:
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]  # "a/#" is for "a" too
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


_known_matches = functools.lru_cache(4096)(_matches)  # a node hears the same topics over and over
