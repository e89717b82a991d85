"""Precedence: flag > environment > file > what is laid under it, key by key.

Only sections are merged; a list, a secret or a table of the user's own names is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from edgemw.core.config.hints import bare, child, has_key, merges
from edgemw.core.config.schema import schema_keys
from edgemw.core.config.tree import Array, Origin, Table, Tree, tree_of_text
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError

ENV_PREFIX = "EDGEMW_"
ENV_RESERVED = frozenset({"EDGEMW_CONFIG"})
ENV_PRIVATE_PREFIX = "EDGEMW_SECRET_"


def env_name(key: str) -> str:
    """Name of the environment variable that sets a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def overlay(over: Tree | None, under: Tree | None, hint: Any) -> Tree | None:
    """`over` where it speaks, `under` elsewhere."""
    if over is None or under is None:
        return over or under
    if not (merges(hint) and isinstance(over, Table) and isinstance(under, Table)):
        return over
    items = dict(under.items)
    for key, value in over.items.items():
        merged = overlay(value, under.items.get(key), child(hint, key))
        items[key] = value if merged is None else merged
    return Table(items, over.origin)


def with_environment(cls: type, tree: Tree, env: Mapping[str, str], also: Sequence[type]) -> Tree:
    """The tree with what the environment says; names that only schemas in `also` know are left alone.

    Raises:
        ConfigError: a name that starts with EDGEMW_ is no setting of any schema.
    """
    for name in sorted(name for name in env if name.startswith(ENV_PREFIX)):
        if name in ENV_RESERVED or name.startswith(ENV_PRIVATE_PREFIX):
            continue
        parts = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
        if has_key(cls, parts):
            tree = _put(tree, parts, tree_of_text(env[name], Origin("environment", name)), cls)
        elif not any(has_key(other, parts) for other in also):
            known = [env_name(key.path) for key in schema_keys(cls)]
            raise ConfigError("this environment variable names no setting", key=name, suggestion=nearest(name, known))
    return tree


def with_overrides(cls: type, tree: Tree, overrides: Sequence[str]) -> Tree:
    """The tree with what flags say, "a.b=value" each; the last one wins.

    Raises:
        ConfigError: one is written otherwise, or sets what is no setting.
    """
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        parts = tuple(key.split("."))
        if not equals:
            raise ConfigError(f"write KEY=VALUE, not {item!r}")
        if not has_key(cls, parts):
            raise ConfigError("no such setting", key=key, suggestion=nearest(key, [k.path for k in schema_keys(cls)]))
        tree = _put(tree, parts, tree_of_text(text.strip(), Origin("flag")), cls)
    return tree


def _put(tree: Tree | None, parts: tuple[str, ...], value: Tree, hint: Any) -> Tree:
    """A copy of the tree with one value set; a list may grow by one element."""
    if not parts:
        return value
    first, rest, inner = parts[0], parts[1:], child(hint, parts[0])
    origin = tree.origin if tree is not None else value.origin
    if get_origin(bare(hint)) is tuple:
        items = tree.items if isinstance(tree, Array) else ()
        index = int(first)
        if index > len(items):
            raise value.origin.refusal(f"there are {len(items)} elements, numbered from 0: {index} is too far")
        old = items[index] if index < len(items) else None
        return Array((*items[:index], _put(old, rest, value, inner), *items[index + 1 :]), origin)
    table = tree.items if isinstance(tree, Table) else {}
    return Table({**table, first: _put(table.get(first), rest, value, inner)}, origin)
