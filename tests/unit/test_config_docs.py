"""docs/configuration.md describes exactly the keys that exist. `python tests/unit/test_config_docs.py` writes the tables anew."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from edgemw.app.settings import SCHEMAS, Kind
from edgemw.core.config.schema import Key, schema_keys
from edgemw.core.config.writer import toml_value

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- keys -->\n", "<!-- end of keys -->\n"
LETTERS: dict[Kind, str] = {"deployment": "T", "fog": "F", "device": "D"}


@dataclass
class Row:
    """One key and the kinds of file that have it."""

    key: Key
    defaults: dict[str, str] = field(default_factory=dict)


def default_of(key: Key) -> str:
    if key.default is dataclasses.MISSING:
        return "required"
    return "unset" if key.default in (None, (), {}) else f"`{toml_value(key.default, key.hint)}`"


def shared_path(path: str) -> str:
    """A section of a tier has the keys of the section that it changes."""
    inner = path.removeprefix("tiers.NAME.")
    return inner if "." in inner else path


def rows() -> dict[str, dict[str, Row]]:
    sections: dict[str, dict[str, Row]] = {}
    for kind in ("device", "fog", "deployment"):
        for key in schema_keys(SCHEMAS[kind]):
            section, _, name = shared_path(key.path).rpartition(".")
            row = sections.setdefault(section, {}).setdefault(name, Row(key))
            if not key.path.startswith("tiers.NAME.data."):
                row.defaults[LETTERS[kind]] = default_of(key)
    return sections


def title(section: str) -> str:
    if section.endswith(".N"):
        return f"`[[{section.removesuffix('.N')}]]` (devices)"
    return f"`[{section}]`" + (" (deployment)" if section == "data" else "") if section else "At the top of the file"


def tables() -> str:
    lines: list[str] = []
    for section, names in rows().items():
        lines += ["", f"### {title(section)}", "", "| Key | In | Value | Default | Meaning |", "|---|---|---|---|---|"]
        for name, row in names.items():
            kinds = "".join(letter for letter in "TFD" if letter in row.defaults)
            distinct = dict.fromkeys(row.defaults.values())
            default = (
                next(iter(distinct))
                if len(distinct) == 1
                else ", ".join(f"{letter}: {text}" for letter, text in row.defaults.items())
            )
            value = row.key.expected + (f", {row.key.bounds}" if row.key.bounds else "")
            lines.append(f"| `{name}` | {kinds} | {value} | {default} | {row.key.option.help} |".replace("\n", " "))
    return "\n".join(lines)[1:] + "\n"


def test_the_reference_is_what_the_dataclasses_say() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == tables(), f"run: python {Path(__file__).name}"


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    documented = set()
    section = ""
    for line in tables().splitlines():
        if line.startswith("### "):
            section = line
        elif line.startswith("| `"):
            documented.add((section, line.split("`")[1]))
    keys = {shared_path(key.path).rpartition(".")[::2] for cls in SCHEMAS.values() for key in schema_keys(cls)}
    assert documented == {(f"### {title(section)}", name) for section, name in keys}


def test_every_key_has_help() -> None:
    for cls in SCHEMAS.values():
        for key in schema_keys(cls):
            assert key.option.help, key.path
            assert "|" not in key.option.help, key.path


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(text[: text.index(BEGIN) + len(BEGIN)] + tables() + text[text.index(END) :], encoding="utf-8")
