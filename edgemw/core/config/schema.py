"""A dataclass as the schema of a file: what its fields say besides their types, and every key that it has.

Fields are made by `option`, `required` and `section`. A `__post_init__` may refuse a combination with
`ConfigError(reason, key="relative.key")`, or without a key as a whole; the loader adds the place.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from edgemw.core.config.hints import field_types, fields_of, inner_section
from edgemw.core.config.words import amount, expected

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a field says about itself besides its type.

    `check` gives the reason why a value is refused, or "". A refused value of a `private` field is not repeated.
    """

    help: str
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    example: str = ""
    check: Callable[[Any], str] | None = None
    inherit: bool = False
    private: bool = False

    def limits(self) -> Iterator[tuple[str, float, Callable[[float, float], bool]]]:
        """Each bound: in words, its value, and the test that a value must pass against it."""
        if self.min is not None:
            yield "at least", self.min, operator.ge
        if self.above is not None:
            yield "more than", self.above, operator.gt
        if self.max is not None:
            yield "at most", self.max, operator.le
        if self.below is not None:
            yield "less than", self.below, operator.lt

    def problem(self, value: object, hint: Any) -> str:
        """Why the value is refused; empty when it is not."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            failed = (
                f"must be {words} {amount(bound, hint)}" for words, bound, holds in self.limits() if not holds(value, bound)
            )
            return next(failed, "")
        return self.check(value) if self.check is not None else ""


def option(default: T, **about: Any) -> T:
    """A dataclass field with a default; `about` is the fields of `Option`."""
    metadata = {"option": Option(**about)}
    if isinstance(default, dict):
        return cast(T, field(default_factory=default.copy, metadata=metadata))
    return field(default=default, metadata=metadata)


def required(**about: Any) -> Any:
    """A dataclass field that a file must give."""
    return field(metadata={"option": Option(**about)})


def section(cls: type[T], *, help: str, inherit: bool = False, **defaults: Any) -> T:
    """A nested dataclass, made of its own defaults and of `defaults` where the file is silent.

    With `inherit`, keys that are missing here come from the section of the same name at the top of the file.
    """
    return field(default_factory=lambda: cls(**defaults), metadata={"option": Option(help=help, inherit=inherit)})


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a schema; `path` has NAME and N where a user chooses a name or a number."""

    path: str
    hint: Any
    option: Option
    default: object = dataclasses.MISSING

    @property
    def expected(self) -> str:
        """The type in words."""
        return expected(self.hint)

    @property
    def bounds(self) -> str:
        """The range in words; empty when there is none."""
        return ", ".join(f"{words} {amount(bound, self.hint)}" for words, bound, _ in self.option.limits())

    def matches(self, key: str) -> bool:
        """Whether a dotted key of a file is this one."""
        wanted, given = self.path.split("."), key.split(".")
        return len(wanted) == len(given) and all(
            w in (g, "NAME") or (w == "N" and g.isdecimal()) for w, g in zip(wanted, given, strict=True)
        )


def schema_keys(cls: type) -> Iterator[Key]:
    """Every key that a file for `cls` may hold, sections opened, in the order of the fields."""
    yield from _keys(cls, (), None)


def _keys(cls: type, path: tuple[str, ...], base: object) -> Iterator[Key]:
    for spec in fields_of(cls):
        here, hint = (*path, spec.name), field_types(cls)[spec.name]
        default = default_of(spec, base)
        inner, name = inner_section(hint)
        if inner is None:
            yield Key(".".join(here), hint, spec.metadata["option"], default)
        else:
            yield from _keys(inner, here + name, default if isinstance(default, inner) else None)


def default_of(spec: dataclasses.Field[Any], base: object) -> object:
    """The default of a field: that of `base`, an instance of its class, or without one the field's own (or MISSING)."""
    if base is not None:
        return getattr(base, spec.name)
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default
