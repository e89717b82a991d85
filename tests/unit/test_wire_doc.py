"""docs/wire-format.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgemw.compression import side
from edgemw.compression.codec import Codec, Past
from edgemw.compression.powersgd import PowerSgd
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Slot
from edgemw.wire import decode, messages
from edgemw.wire.messages import KINDS, PARTS, Ack, Frame, pack
from edgemw.wire.topics import CHANNELS

TEXT = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()


def rows(header: str) -> list[str]:
    """The rows of the table with this header."""
    lines = TEXT.splitlines()
    start = lines.index(header) + 2
    return lines[start : next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))]


def example(after: str) -> str:
    """The first indented block after a phrase."""
    rest = TEXT[TEXT.index(after) :]
    block = re.search(r"\n\n((?:    .*\n)+)", rest)
    assert block is not None
    return block[1]


def test_the_table_of_kinds() -> None:
    expected = [f"| {kind.number} | `{kind.name}` | {kind.body.about or 'nothing'} |" for kind in KINDS]
    assert rows("| kind | message | body |") == expected


def test_the_table_of_records() -> None:
    assert rows("| record | places |") == [f"| `{part.cls.__name__}` | {part.about} |" for part in PARTS]


def test_every_kind_is_explained() -> None:
    for kind in KINDS:
        assert f"**{kind.name}**" in TEXT


def test_the_table_of_topics() -> None:
    expected = [
        f"| {c.name} | `{c.pattern}` | {'yes' if c.retained else 'no'} | {c.writer} | {c.reader} | {', '.join(c.carries)} |"
        for c in CHANNELS
    ]
    assert rows("| channel | topic in the domain | retained | writer | reader | carries |") == expected


def test_the_table_of_limits() -> None:
    values = vars(messages) | vars(decode)
    named = {name for module in (messages, decode) for name in vars(module) if re.fullmatch(r"M(AX|IN)_[A-Z_]+", name)}
    table = [row.split(" | ") for row in rows("| limit | value | of |")]
    documented = {name.strip("| `"): int(value) for name, value, _ in table}
    assert documented == {name: values[name] for name in named}


def test_the_worked_example_is_a_frame() -> None:
    lines = re.findall(r"^ +((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", example("A worked example"), re.MULTILINE)
    data = bytes.fromhex(" ".join(lines))
    assert len(data) == 30
    assert data == pack(Frame("digits", "fog-7", 1790000000, 0, Ack(1790000123, 41)))


@pytest.mark.parametrize(
    ("codec", "phrase", "values", "step"),
    [
        (codec_named("lattice", coder="golomb"), "Example: size 8", [0, 1, 0, 0, -0.5, 0, 0, 0], 0.5),
        (codec_named("lattice"), "The same example", [0, 1, 0, 0, -0.5, 0, 0, 0], 0.5),
        (codec_named("lanes", blocks=2), "Example: seed 0", [0, 1, 0, -0.5], 0.5),
        (codec_named("dense"), "Example, the values 1", [1, -0.5], 0.0),
    ],
    ids=["lattice-golomb", "lattice-range", "lanes", "dense"],
)
def test_the_payloads_are_what_the_codecs_write(codec: Codec, phrase: str, values: list[float], step: float) -> None:
    payload = bytes.fromhex(example(phrase).splitlines()[0].replace(" ", ""))
    vector = np.array(values, np.float32)
    assert codec.encode(vector, step) == payload
    assert codec_named(codec.name).decode(payload, vector.size).tolist() == values


@pytest.mark.parametrize(
    ("codec", "phrase", "values", "parameters"),
    [
        ("topk", "Example: size 8, `k` 0.25", [0, 1, 0, 0, -0.5, 0, 0, 0], {"k": 0.25}),
        ("qsgd", "Example: size 4, the value 4", [0, 0, 4, 0], {}),
        ("signsgd", "Example, the values 0.5, -0.5", [0.5, -0.5, 0.5, -0.5], {}),
        ("powersgd", "Example: size 2, two columns", [2, -1], {"columns": 2}),
    ],
)
def test_the_payloads_of_the_baselines_are_what_they_write(
    codec: str, phrase: str, values: list[float], parameters: dict[str, float]
) -> None:
    payload = bytes.fromhex(example(phrase).splitlines()[0].replace(" ", ""))
    vector = np.array(values, np.float32)
    assert codec_named(codec, **parameters).encode(vector, 0.0) == payload
    assert codec_named(codec).decode(payload, vector.size).tolist() == values


def test_a_payload_on_a_shared_basis_is_what_a_device_writes() -> None:
    payload = bytes.fromhex(example("Example: size 2, a piece of one row").splitlines()[0].replace(" ", ""))
    past = Past(2, np.ones(2, np.float32), (Slot("w", (1, 2), 0),))
    assert PowerSgd().along(past).encode(np.array([2, -1], np.float32), 0.0) == payload
    assert codec_named("powersgd").decode(payload, 2).tolist() == [2, -1]


def test_the_side_values_are_what_is_written() -> None:
    first, second = (bytes.fromhex(example(phrase).replace(" ", "")) for phrase in ("Example, the values -1.5", "and added to"))
    values = np.array([-1.5, 2, -2])
    assert side.encode(values) == first
    assert side.decode(first, 3).tolist() == values.tolist()
    assert side.merge([first, side.encode(np.array([1 / 3, 0.001, 0]))], 3) == second
