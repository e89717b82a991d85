"""What `edgemw config explain` says about a key: its value, where that came from, what it means and what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from edgemw.core.config.layers import env_name
from edgemw.core.config.loader import Loaded, value_at
from edgemw.core.config.schema import Key, schema_keys
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Explanation:
    """One key: its value, where that came from, and what the schema says about it."""

    key: str
    value: object
    origin: str
    about: Key

    @property
    def env(self) -> str:
        """Name of the environment variable that sets this key."""
        return env_name(self.key)


def explain(cls: type[T], loaded: Loaded[T], key: str) -> Explanation:
    """The value of a dotted key, its origin, help and bounds.

    Raises:
        ConfigError: there is no such key, or it is a whole section.
    """
    for known in schema_keys(cls):
        if known.matches(key):
            return Explanation(key, value_at(loaded.value, key), loaded.origin(key), known)
    raise ConfigError("no such setting", key=key, suggestion=nearest(key, [k.path for k in schema_keys(cls)]))
