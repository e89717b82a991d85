"""What the members of a group and its fog node must agree on before any of them says something: names, thresholds, a transcript.

transcript = sha256(net, task, packed group) ;  label = its first 16 bytes, by which messages name the group
"""

from __future__ import annotations

import hashlib

from edgemw.wire.encode import encode
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.messages import Frame, Group, Update, pack_group

LEAST_MEMBERS = 3
"""A sum of two tells each of them what the other has said."""

GROUP_DEADLINES = 3
"""So many of its window's deadlines a group takes at most until its updates are in: for keys, for shares, for updates."""


def transcript(net: str, task: str, group: Group) -> bytes:
    """The 32 bytes that stand for everything that is known of a group."""
    return hashlib.sha256(encode([net, task, pack_group(group)])).digest()


def label_of(transcript: bytes) -> bytes:
    """How messages name a group."""
    return transcript[:LABEL_BYTES]


def needed(members: int, percent: int) -> int:
    """How many of a group take the masks off its sum, and are in it: at least so many percent, more than half, no two alone."""
    return max(LEAST_MEMBERS, members // 2 + 1, -(-members * percent // 100))


def is_masked(frame: Frame) -> bool:
    """Whether a frame is an update whose lanes nobody can read alone."""
    return isinstance(frame.message, Update) and frame.message.group != b""
