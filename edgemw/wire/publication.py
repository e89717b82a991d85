"""A frame on its topic: what the topic says already is left empty in the frame, and filled in by the reader.

    topic has a level `task`                  task ""
    topic has one node that may write to it   node ""

A frame that says them all the same is taken where it says the same as its topic.
"""

from __future__ import annotations

from dataclasses import replace

from edgemw.core.errors import WireError
from edgemw.wire import topics
from edgemw.wire.messages import MAX_MESSAGE_BYTES, Frame, pack, unpack
from edgemw.wire.topics import Topic


def write(topic: str, frame: Frame) -> bytes:
    """The payload of a frame on its topic. Raises WireError for a topic that is not in the table."""
    task, node = _said(topics.parse(topic))
    return pack(replace(frame, task="" if task == frame.task else frame.task, node="" if node == frame.node else frame.node))


def read(topic: Topic, payload: bytes) -> Frame:
    """The frame of a publication.

    Raises:
        WireError: as `unpack`, or it does not belong on this topic: see `check`.
    """
    frame = unpack(payload, MAX_MESSAGE_BYTES, _said(topic))
    check(topic, frame)
    return frame


def check(topic: Topic, frame: Frame) -> None:
    """Raise WireError for a kind that does not stand on the topic, another task, or another node than the one that may write."""
    if type(frame.message).__name__ not in topics.carried(topic.channel):
        raise WireError("kind", f"{type(frame.message).__name__} on {topic.channel}")
    task, node = _said(topic)
    if task and task != frame.task:
        raise WireError("task", "the frame is about another task than its topic")
    if node and node != frame.node:
        raise WireError("sender", f"{frame.node} on a topic of {node}")


def _said(topic: Topic) -> tuple[str, str]:
    """The task and the node that a topic says, "" where it says none."""
    return topic.values.get("task", ""), topics.writer(topic) or ""
