"""Access rules of a broker as values: who may write and read which topic filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SHIPPED = Path(__file__).parents[2] / "brokers"
"""Beside the package `edgemw`, in a checkout as where it is installed."""


@dataclass(frozen=True, slots=True)
class Rights:
    """The topic filters that somebody may write and read."""

    write: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def of(self, name: str) -> Rights:
        """The same with a name in the place of %u."""
        return Rights([topic.replace("%u", name) for topic in self.write], [topic.replace("%u", name) for topic in self.read])

    def __add__(self, other: Rights) -> Rights:
        return Rights(self.write + other.write, self.read + other.read)


@dataclass(frozen=True, slots=True)
class Rules:
    """What everybody may do, %u being who that is, and what some users may do besides."""

    everybody: Rights
    users: Mapping[str, Rights]

    def accounts(self, nodes: Iterable[str]) -> Mapping[str, Rights]:
        """One for each node, and one for each user that is named."""
        names = dict.fromkeys([*nodes, *self.users])
        return {name: self.everybody.of(name) + self.users.get(name, Rights()) for name in names}


def parse(acl: str) -> Rules:
    """Read the file of mosquitto.

    Raises:
        ValueError: a line is not understood.
    """
    everybody, users = Rights(), dict[str, Rights]()
    user = Rights()
    for line in acl.splitlines():
        match line.split():
            case []:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case ["user", name]:
                user = users.setdefault(name, Rights())
            case [("pattern" | "topic") as kind, ("read" | "write" | "readwrite") as way, topic]:
                rights = everybody if kind == "pattern" else user
                for verb, filters in (("write", rights.write), ("read", rights.read)):
                    if verb in way:
                        filters.append(topic)
            case _:
                raise ValueError(f"not understood: {line!r}")
    return Rules(everybody, users)
