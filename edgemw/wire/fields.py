"""What may stand in one place of a message: how it is read, how it is written, and how the documents call it.

A reader gets a value from a peer and gives it back checked, or raises WireError("value"). A writer gets a value from here.
It makes texts fit and leaves numbers that are not finite out of tables, so that a loss that diverged or a long error
message never makes a whole frame unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgemw.core.errors import WireError
from edgemw.core.ids import interned, valid_id
from edgemw.wire.readings import MOST_PLACES, READINGS
from edgemw.wire.topics import EVERYBODY

MAX_INTEGER = (1 << 63) - 1
SHA256_BYTES = 32
LABEL_BYTES = 16  # of a sha256, where it only tells things apart
SIGNATURE_BYTES = 64  # Ed25519, RFC 8032
MAX_FACTS = 256
MAX_SUMS = 64
_LARGEST_WHOLE = 1 << 32  # written as an integer; above, a float may be shorter

SUM_NAMES = (
    "uplink", "downlink", "train_loss", "train_s", "refused", "test.accuracy", "test.cross_entropy", "test.mse", "test.mae",
)  # fmt: skip
CODEC_NAMES = ("lattice", "dense", "topk", "qsgd", "signsgd", "powersgd")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """One place.

    Attributes:
        about: its type and range, as docs/wire-format.md says it.
        schema: the same as JSON schema; bytes are described as text.
        read: checks a value from a peer. Raises WireError.
        write: the value that MessagePack gets.
    """

    about: str
    schema: dict[str, Any]
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = _same


@dataclass(frozen=True, slots=True)
class Record:
    """An array whose places are the attributes of a class, in order; places after the known ones are ignored.

    Attributes:
        cls: the dataclass that is read and written.
        places: the fields by attribute.
        check: what must hold between the places. Raises WireError.
        later: attributes of the last places, which came later: one that holds the default of its class is not written where
            nothing follows it, and a reader takes the default for it.
    """

    cls: type[Any]
    places: dict[str, Field]
    check: Callable[[Any], None] = field(default=_same)
    later: tuple[str, ...] = ()
    _defaults: tuple[Any, ...] = field(init=False, repr=False)
    _readers: tuple[Callable[[Any], Any], ...] = field(init=False, repr=False)
    _writers: tuple[tuple[str, Callable[[Any], Any]], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Put together what every message asks for."""
        defaults = {spec.name: spec.default for spec in fields(self.cls)}
        object.__setattr__(self, "_defaults", tuple(defaults[name] for name in self.later))
        object.__setattr__(self, "_readers", tuple(place.read for place in self.places.values()))
        object.__setattr__(self, "_writers", tuple((name, place.write) for name, place in self.places.items()))

    @property
    def about(self) -> str:
        """The places in words."""
        absent = dict.fromkeys(self.later, ", or absent")
        return ", ".join(f"{name}: {place.about}{absent.get(name, '')}" for name, place in self.places.items())

    @property
    def schema(self) -> dict[str, Any]:
        """The array as JSON schema."""
        items = [{"title": name, **place.schema} for name, place in self.places.items()]
        return {"type": "array", "items": items, "minItems": self._needed} if items else {"type": "array"}

    @property
    def _needed(self) -> int:
        return len(self.places) - len(self.later)

    def read(self, value: Any) -> Any:
        """An instance of the class."""
        if not isinstance(value, tuple) or len(value) < self._needed:
            raise WireError("value", f"expected {self._needed} places for {self.cls.__name__}")
        result = self.cls(*[read(item) for read, item in zip(self._readers, value, strict=False)])
        self.check(result)
        return result

    def write(self, value: Any) -> list[Any]:
        """The array of an instance."""
        written = [write(getattr(value, name)) for name, write in self._writers]
        for name, default in zip(reversed(self.later), reversed(self._defaults), strict=True):
            if getattr(value, name) != default:
                break
            written.pop()
        return written

    def field(self) -> Field:
        """This record as a place of another one."""
        return Field(self.cls.__name__, self.schema, self.read, self.write)


def integer(low: int = 0, high: int = MAX_INTEGER) -> Field:
    """An integer from `low` to `high`."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise WireError("value", f"expected an integer from {low} to {high}")
        return value

    about = f"integer {low} to {'2^63-1' if high == MAX_INTEGER else high}"
    return Field(about, {"type": "integer", "minimum": low, "maximum": high}, read)


def optional(item: Field) -> Field:
    """A value, or nil for None."""
    return Field(
        f"{item.about} or nil",
        {"anyOf": [item.schema, {"type": "null"}]},
        lambda value: None if value is None else item.read(value),
        lambda value: None if value is None else item.write(value),
    )


def binary(most: int) -> Field:
    """At most that many bytes."""

    def read(value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) > most:
            raise WireError("value", f"expected at most {most} bytes")
        return value

    return Field(f"0 to {most} bytes", {"type": "string", "description": "bytes", "maxLength": most}, read)


def text(most: int) -> Field:
    """At most that many printable characters; a writer cuts, and puts a space where a character is not printable."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            raise WireError("value", f"expected at most {most} printable characters")
        return value

    def write(value: str) -> str:
        cut = value[:most]
        return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)

    return Field(f"text of 0 to {most}", {"type": "string", "maxLength": most}, read, write)


def array(item: Field, most: int, check: Callable[[tuple[Any, ...]], None] = _same) -> Field:
    """An array of at most that many; `check` raises WireError for what must hold between them."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple) or len(value) > most:
            raise WireError("value", f"expected an array of at most {most}")
        items = tuple([item.read(one) for one in value])
        check(items)
        return items

    schema = {"type": "array", "items": item.schema, "maxItems": most}
    return Field(f"array of 0 to {most}: {item.about}", schema, read, lambda items: [item.write(one) for one in items])


def _read_real(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise WireError("value", "expected a finite number")
    return float(value)


def _write_real(value: float) -> int | float:
    """A whole number in the at most 5 bytes of an integer."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE
    return int(value) if whole else value


def _read_amount(value: Any) -> float:
    amount = _read_real(value)
    if amount < 0:
        raise WireError("value", "expected a number that is not negative")
    return amount


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WireError("value", "expected true or false")
    return value


def _read_digest(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) not in (LABEL_BYTES, SHA256_BYTES):
        raise WireError("value", "expected a sha256 or a label")
    return value


def _read_label(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != LABEL_BYTES:
        raise WireError("value", f"expected the first {LABEL_BYTES} bytes of a sha256")
    return value


def _read_signature(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != SIGNATURE_BYTES:
        raise WireError("value", f"expected a signature of {SIGNATURE_BYTES} bytes")
    return value


def _read_node(value: Any) -> str:
    if not isinstance(value, str) or not valid_id(value) or value == EVERYBODY:
        raise WireError("value", "expected the id of a node")
    return interned(value)


def _read_task(value: Any) -> str:
    if not isinstance(value, str) or not (value == "" or valid_id(value)):
        raise WireError("value", "expected the id of a task, or nothing")
    return interned(value)


_ID_PATTERN = "^[a-z0-9-]{1,40}$"

REAL = Field("finite number", {"type": "number"}, _read_real, _write_real)
AMOUNT = Field("finite number >= 0", {"type": "number", "minimum": 0}, _read_amount, _write_real)
FLAG = Field("true or false", {"type": "boolean"}, _read_flag)
DIGEST = Field(
    "sha256 or label", {"type": "string", "description": "32 or 16 bytes", "minLength": 16, "maxLength": 32}, _read_digest
)
LABEL = Field("label", {"type": "string", "description": "16 bytes", "minLength": 16, "maxLength": 16}, _read_label)
SIGNATURE = Field(
    f"{SIGNATURE_BYTES} bytes",
    {"type": "string", "description": "bytes", "minLength": SIGNATURE_BYTES, "maxLength": SIGNATURE_BYTES},
    _read_signature,
)


def _exactly(size: int, about: str) -> Field:
    def read(value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) != size:
            raise WireError("value", f"expected {size} bytes")
        return value

    return Field(about, {"type": "string", "description": "bytes", "minLength": size, "maxLength": size}, read)


MAYBE_SIGNATURE = Field(
    f"{SIGNATURE_BYTES} bytes, or none",
    {"type": "string", "description": "bytes", "maxLength": SIGNATURE_BYTES},
    lambda value: value if value == b"" else _read_signature(value),
)
KEY = _exactly(32, "32 bytes")
SHARE = _exactly(33, "33 bytes")
WORD = text(80)
NATURAL = integer()
NODE = Field("node", {"type": "string", "pattern": _ID_PATTERN, "not": {"const": EVERYBODY}}, _read_node)
PARENT = Field(
    'node or ""',
    {"type": "string", "pattern": "^([a-z0-9-]{1,40})?$", "not": {"const": EVERYBODY}},
    lambda value: "" if value == "" else _read_node(value),
)
TASK = Field('task or ""', {"type": "string", "pattern": "^([a-z0-9-]{1,40})?$"}, _read_task)

ID = Field('id or ""', TASK.schema, _read_task)

_FACT_TEXT = text(200)
_FACT_INTEGER = integer(-MAX_INTEGER)


def _read_fact(value: Any) -> int | float | str:
    if isinstance(value, str):
        return str(_FACT_TEXT.read(value))
    return _read_real(value) if isinstance(value, float) else int(_FACT_INTEGER.read(value))


def _read_facts(value: Any) -> dict[str, int | float | str]:
    if not isinstance(value, dict) or len(value) > MAX_FACTS:
        raise WireError("value", f"expected a map of at most {MAX_FACTS}")
    return {WORD.read(name): _read_fact(fact) for name, fact in value.items()}


def _write_facts(facts: dict[str, int | float | str]) -> dict[str, int | float | str]:
    kept = {name: fact for name, fact in facts.items() if isinstance(fact, str) or math.isfinite(fact)}
    return {name: _FACT_TEXT.write(fact) if isinstance(fact, str) else fact for name, fact in kept.items()}


def known(names: tuple[str, ...]) -> Field:
    """A word; one of `names` is written as its place in them."""
    numbers = {name: number for number, name in enumerate(names)}

    def read(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        return str(WORD.read(value))

    schema = {"type": ["integer", "string"], "maximum": len(names) - 1, "minimum": 0, "maxLength": 80}
    return Field("name", schema, read, lambda name: numbers[name] if name in numbers else WORD.write(name))


SUM_NAME = known(SUM_NAMES)
CODEC = known(CODEC_NAMES)


def _read_tally(value: Any) -> dict[str, tuple[float, float]]:
    if not isinstance(value, tuple) or len(value) > MAX_SUMS:
        raise WireError("value", f"expected an array of at most {MAX_SUMS}")
    tally = dict(map(_read_sum, value))
    if len(tally) != len(value):
        raise WireError("value", "a sum that stands twice")
    return tally


def _read_sum(value: Any) -> tuple[str, tuple[float, float]]:
    if not isinstance(value, tuple) or len(value) < 3:
        raise WireError("value", "expected a name, a sum and its weight")
    return SUM_NAME.read(value[0]), (_read_real(value[1]), _read_real(value[2]))


def _write_tally(tally: dict[str, tuple[float, float]]) -> list[list[Any]]:
    kept = [(name, *pair) for name, pair in tally.items() if math.isfinite(pair[0]) and math.isfinite(pair[1])]
    return [[SUM_NAME.write(name), _write_real(value), _write_real(weight)] for name, value, weight in kept]


def _read_readings(value: Any) -> dict[str, float]:
    if not isinstance(value, tuple) or len(value) > MOST_PLACES:
        raise WireError("value", f"expected an array of at most {MOST_PLACES}")
    return {reading.name: _read_real(number) for reading, number in zip(READINGS, value, strict=False) if number is not None}


def _write_readings(readings: Mapping[str, float]) -> list[int | float | None]:
    found = [readings.get(reading.name) for reading in READINGS]
    return [None if number is None or not math.isfinite(number) else _write_real(float(number)) for number in found]


READINGS_FIELD = Field(
    f"array of 0 to {MOST_PLACES}: finite number or nil",
    {"type": "array", "maxItems": MOST_PLACES, "items": {"type": ["number", "null"]}},
    _read_readings,
    _write_readings,
)
FACTS = Field(
    f"map of 0 to {MAX_FACTS}: word to integer, finite number or text of 0 to 200",
    {"type": "object", "maxProperties": MAX_FACTS, "additionalProperties": {"type": ["integer", "number", "string"]}},
    _read_facts,
    _write_facts,
)
TALLY = Field(
    f"array of 0 to {MAX_SUMS}: [name, sum, weight], finite numbers",
    {
        "type": "array",
        "maxItems": MAX_SUMS,
        "items": {"type": "array", "items": [SUM_NAME.schema, {"type": "number"}, {"type": "number"}], "minItems": 3},
    },
    _read_tally,
    _write_tally,
)
