"""A number of a profile together with how it is known, and where from: one inline table in its file.

    idle_w = { value = 2.7, how = "read", source = "dramble", note = "540 mA without a screen" }

`source` is a key of the file's table [sources], which gives its title.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

from edgemw.core.config.hints import fields_of, is_section
from edgemw.core.config.schema import option, required
from edgemw.core.config.units import Duration, Size
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError

How = Literal["measured", "read", "computed", "estimated", "recalled"]
HOW = MappingProxyType(
    {
        "measured": "by whoever wrote the file",
        "read": "stands in the source, measured or stated there",
        "computed": "from numbers in the source, by arithmetic alone: the note says how",
        "estimated": "from such numbers and an assumption, so with a wide margin: the note says which",
        "recalled": "well known, but not looked up for this file: check before you quote it",
    }
)
"""What each way of knowing a number means."""

_EXAMPLE = '{ value = 2.7, how = "read", source = "meter" }'


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How a number is known."""

    how: How = required(help="how the number is known")
    source: str = required(help="where from, a key of [sources]", example='"meter"')
    note: str = option("", help="formula, conditions, other values")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Known):
    """A quantity in the unit that its key ends with."""

    value: float = required(help="the number", min=0, example="2.7")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(Known):
    """A part of a whole."""

    value: float = required(help="the number", min=0, max=1, example="0.25")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Known):
    """How many there are."""

    value: int = required(help="the number", min=1, example="4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes(Known):
    """A size."""

    value: Size = required(help="the number", min=1, example='"512MiB"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Time(Known):
    """A time, as settings have it."""

    value: Duration = required(help="the time", example='"5s"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Names(Known):
    """Some of several things, by name."""

    value: tuple[str, ...] = required(help="the names", example='["lattice"]')

    def __post_init__(self) -> None:
        if not self.value or len(set(self.value)) != len(self.value):
            raise ConfigError("must be one name or more, each once", key="value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve(Known):
    """Power over CPU utilisation."""

    points: tuple[tuple[float, ...], ...] = required(
        help="pairs of utilisation (0 to 1, rising) and watts", example="[[0, 2.7], [0.5, 5.1], [1, 6.4]]"
    )

    def __post_init__(self) -> None:
        if len(self.points) < 2 or any(len(point) != 2 for point in self.points):
            raise ConfigError("must be two or more pairs [utilisation, watts]", key="points")
        uses, watts = zip(*self.points, strict=True)
        if uses[0] != 0 or uses[-1] != 1 or any(low >= high for low, high in pairwise(uses)):
            raise ConfigError("utilisation must rise from 0 to 1", key="points")
        if watts[0] < 0 or any(low > high for low, high in pairwise(watts)):
            raise ConfigError("watts must not be negative or fall", key="points")


def known(help: str) -> Any:
    """A field for a number that a file may leave out, because nobody knows it."""
    return option(None, help=help, example=_EXAMPLE)


def numbers(part: object, above: str = "") -> Iterator[tuple[str, Known]]:
    """Every number of a profile, or of a part of one, with its dotted key."""
    for spec in fields_of(part):
        value = getattr(part, spec.name)
        if isinstance(value, Known):
            yield f"{above}{spec.name}", value
        elif is_section(type(value)):
            yield from numbers(value, f"{above}{spec.name}.")


def check_sources(profile: object, sources: Mapping[str, str]) -> None:
    """Refuse a number whose source has no title. Raises ConfigError with its key."""
    for key, number in numbers(profile):
        if number.source not in sources:
            near = nearest(number.source, list(sources))
            reason = f"names {number.source!r}, which [sources] does not have"
            raise ConfigError(reason, key=f"{key}.source", suggestion=near)


def check_titles(sources: object) -> str:
    """Titles of sources that say something."""
    titles = sources.values() if isinstance(sources, Mapping) else ()
    return "" if all(str(title).strip() for title in titles) else "every source needs a title"


def check_order(part: object, names: tuple[str, ...]) -> None:
    """Refuse numbers that must not fall from one key to the next; those that are absent are passed over."""
    there = [(name, getattr(part, name).value) for name in names if getattr(part, name) is not None]
    for (lower, low), (upper, high) in pairwise(there):
        if low > high:
            raise ConfigError(f"is more than {upper}: {low:.6g} > {high:.6g}", key=f"{lower}.value")
