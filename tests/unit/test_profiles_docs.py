"""docs/profiles.md says what firmware_profiles/ says. `python tests/unit/test_profiles_docs.py` writes its tables anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgemw.cli.profile import amount
from edgemw.core.config.hints import bare, field_types, fields_of, is_section
from edgemw.core.config.words import expected
from edgemw.profiles.catalogue import load_profile, load_radio, profile_names, radio_names
from edgemw.profiles.device import Profile
from edgemw.profiles.energy import Usage, energy_j
from edgemw.profiles.known import HOW, Known, Number
from edgemw.profiles.radio import Radio

DOCS = Path(__file__).parents[2] / "docs" / "profiles.md"


def how() -> Iterator[str]:
    yield "| `how` | the number |"
    yield "|---|---|"
    for name, meaning in HOW.items():
        yield f"| {name} | {meaning} |"


def devices() -> Iterator[str]:
    yield "| name | device | runs | idle | busy | sources of the two |"
    yield "|---|---|---|---|---|---|"
    for profile in map(load_profile, profile_names()):
        watts = (profile.power.idle_w, profile.power.active_w)
        sources = dict.fromkeys(profile.sources[number.source] for number in watts if number is not None)
        told = " | ".join(known(number, "W") for number in watts)
        yield f"| `{profile.name}` | {profile.title} | {profile.runs} | {told} | {'; '.join(sources)} |"


def radios() -> Iterator[str]:
    yield "| name | radio | bytes a second | joules a byte | a session | largest payload |"
    yield "|---|---|---|---|---|---|"
    for radio in map(load_radio, radio_names()):
        rates = pair(radio.rate.up_bytes_per_s, radio.rate.down_bytes_per_s, "B")
        joules = pair(radio.energy.tx_j_per_byte, radio.energy.rx_j_per_byte, "J")
        payload = "-" if radio.limits.payload_bytes is None else f"{radio.limits.payload_bytes.value} B"
        session = known(radio.energy.session_j, "J")
        yield f"| `{radio.name}` | {radio.title} | {rates} | {joules} | {session} | {payload} |"


def known(number: Number | None, unit: str) -> str:
    return "-" if number is None else f"{amount(number, unit)}, {number.how}"


def pair(up: Number | None, down: Number | None, unit: str) -> str:
    return "-" if up is None and down is None else f"{amount(up, unit)}, {amount(down, unit)}"


def keys() -> Iterator[str]:
    for schema, title in ((Profile, "device"), (Radio, "radio")):
        yield f"Of a {title}; those marked # are numbers with `how`, `source` and, if need be, `note`:"
        yield ""
        yield "| key | value | meaning |"
        yield "|---|---|---|"
        yield from key_rows(schema, "")
        yield ""


def key_rows(schema: type, above: str) -> Iterator[str]:
    for spec in fields_of(schema):
        hint = bare(field_types(schema)[spec.name])
        if is_section(hint) and not issubclass(hint, Known):
            yield from key_rows(hint, f"{above}{spec.name}.")
        else:
            value = "#" if is_section(hint) else expected(hint).replace("|", "or")
            yield f"| `{above}{spec.name}` | {value} | {spec.metadata['option'].help} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {"how": how, "devices": devices, "radios": radios, "keys": keys}


def with_tables(text: str, *names: str) -> str:
    for name in names:
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        head, _, rest = text.partition(begin)
        text = head + begin + "\n".join(TABLES[name]()).rstrip("\n") + "\n" + end + rest.partition(end)[2]
    return text


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_what_the_files_and_the_schema_say(name: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text == with_tables(text, name), f"run: python {Path(__file__).name}"


def test_the_example_of_energy_is_true() -> None:
    code, said = re.findall(r"```python\n(.*?print\((.*?)\)  # )([0-9.]+)\n```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[0][
        ::2
    ]
    assert "seconds=60, utilisation=0.5, sent_bytes=20_000" in code
    board = load_profile("raspberry-pi-4b")
    usage = Usage(seconds=60, utilisation=0.5, sent_bytes=20_000)
    assert energy_j(board, usage, load_radio(board.radios[0])).total == pytest.approx(float(said))


def test_the_example_of_a_file_loads(tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[0]
    (tmp_path / "my-board.toml").write_text(text)
    profile = load_profile(tmp_path / "my-board.toml")
    assert profile.radios == ("wifi-sbc", str(tmp_path / "my-radio.toml"))


if __name__ == "__main__":
    DOCS.write_text(with_tables(DOCS.read_text(encoding="utf-8"), *TABLES), encoding="utf-8")
