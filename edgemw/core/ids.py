"""Identities: nodes, and the updates that they make."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import NamedTuple

_ID = re.compile(r"[a-z0-9-]{1,40}\Z")


def valid_id(text: str) -> bool:
    """Whether `text` may name a net, a node or a task (1 to 40 of a-z, 0-9, '-')."""
    return _ID.match(text) is not None


@functools.lru_cache(4096)
def interned(name: str) -> str:
    """A name as an object that all who say it share, as long as it is among those that are said."""
    return name


class UpdateId(NamedTuple):
    """Identity of one update: who made it, in which life of that node, and its number in that life.

    A tuple, because it is what tables of updates are looked up by.
    """

    node: str
    boot: int
    seq: int

    def __str__(self) -> str:
        return f"{self.node}/{self.boot}/{self.seq}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands in a net, in its present life.

    Attributes:
        net: name of the federation.
        node: the node's id.
        parent: id of the fog node above, "" for the top.
        boot: number of this life, larger than every earlier one.
        secret: random bytes of this life, which nobody else knows; what it draws comes from them. Empty draws nothing.
    """

    net: str
    node: str
    parent: str
    boot: int
    secret: bytes = field(default=b"", repr=False)
