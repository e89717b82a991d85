"""docs/configuration.md describes the parameters that codecs have, with the values that they have by themselves."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from edgemw.compression.table import CODECS

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
OWN = {("lattice", "kappa")}  # a key of its own, codec.kappa


def described() -> dict[str, str]:
    section = DOCS.read_text().partition("## Codecs and their parameters\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \| [^|]* \|$", section, re.MULTILINE))


def test_every_codec_is_described() -> None:
    assert list(described()) == list(CODECS)


@pytest.mark.parametrize("name", CODECS)
def test_every_parameter_stands_there_with_its_default(name: str) -> None:
    text = described()[name]
    written = [re.search(r"`(\w+) = ([^`]+)`", part) for part in re.split(r"(?<=[.;]) ", text)]
    said = {match[1]: match[2].strip('"') for match in written if match}
    parameters = inspect.signature(CODECS[name]).parameters.values()
    assert said == {p.name: str(p.default) for p in parameters if (name, p.name) not in OWN}
