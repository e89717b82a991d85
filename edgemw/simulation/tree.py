"""A tree of nodes: one top, fogs below it to any depth, devices at its ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgemw.core.errors import ConfigError


class Tree:
    """Who is below whom; a value that does not change.

    Attributes:
        top: the node without a parent.
        parents: of every other node, each after its own parent.
        children: of every node that has some, in the order given.
        devices: the nodes without children, in the order given.
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        """Take the parent of every node but the top.

        Raises:
            ConfigError: that is not one tree.
        """
        tops = dict.fromkeys(parent for parent in parents.values() if parent not in parents)
        if len(tops) != 1:
            raise ConfigError(f"a tree has one top, not {len(tops)}: {', '.join([*tops][:4]) or 'its nodes go in a circle'}")
        below: dict[str, list[str]] = {}
        for node, parent in parents.items():
            below.setdefault(parent, []).append(node)
        (self.top,) = tops
        order = [self.top]
        for node in order:
            order += below.get(node, [])
        if len(order) != len(parents) + 1:
            raise ConfigError(f"{min(set(parents) - set(order))} is not below {self.top}: its parents go in a circle")
        self.parents: Mapping[str, str] = MappingProxyType({node: parents[node] for node in order[1:]})
        self.children: Mapping[str, tuple[str, ...]] = MappingProxyType({node: tuple(nodes) for node, nodes in below.items()})
        self.devices = tuple(node for node in parents if node not in below)

    @property
    def fogs(self) -> tuple[str, ...]:
        """The nodes between the top and the devices, each after its parent."""
        return tuple(node for node in self.parents if node in self.children)

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """The nodes below the top: fogs by how many links lie between, then all devices."""
        depth = {self.top: 0}
        for node, parent in self.parents.items():
            depth[node] = depth[parent] + 1
        fogs: dict[int, list[str]] = {}
        for node in self.fogs:
            fogs.setdefault(depth[node], []).append(node)
        return (*map(tuple, fogs.values()), self.devices)
