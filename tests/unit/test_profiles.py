"""Profiles of devices and radios: every file that comes with edgemw, and what is refused."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.config.hints import bare, field_types, fields_of, is_section
from edgemw.core.config.loader import load
from edgemw.core.config.writer import toml_text
from edgemw.core.errors import ConfigError
from edgemw.profiles.catalogue import FOLDER, RADIOS, load_either, load_profile, load_radio, profile_names, radio_names
from edgemw.profiles.device import Profile
from edgemw.profiles.known import HOW, Bytes, Count, Curve, How, Known, Names, Number, Ratio, Time, numbers
from edgemw.profiles.radio import Radio
from edgemw.profiles.sane import sane_range

FILES = [*sorted(FOLDER.glob("*.toml")), *sorted(RADIOS.glob("*.toml"))]

SANE = {
    "_v": (1, 400),
    "_w": (1e-7, 2000),
    "_hz": (1e6, 1e10),
    "_j": (1e-3, 1e6),
    "_s": (1e-3, 60),
    "_ratio": (0.001, 1),
    "bytes_per_s": (1, 1e9),
    "j_per_byte": (0, 0.01),
    "macs_per_s": (1e6, 1e12),
    "flops_per_s": (1e8, 1e13),
    "j_per_mac": (1e-13, 1e-7),
    "ram_bytes": (2**17, 2**40),
    "flash_bytes": (2**17, 2**40),
    "packet_bytes": (128, 2**28),
    "chunk_bytes": (20, 2**20),
    "payload_bytes": (20, 2**28),
    "cores": (1, 256),
    "memory_bytes": (2**26, 2**40),
    "training.threads": (1, 8),
    "energy.interval": (1, 10),
}


def written(table: dict[str, Any], above: str = "") -> set[str]:
    """The keys of a file that hold a number with its origin."""
    inner = {f"{above}{key}": value for key, value in table.items() if isinstance(value, dict)}
    found = {key for key, value in inner.items() if "how" in value}
    return found.union(*(written(value, f"{key}.") for key, value in inner.items() if key not in found))


def by_file(path: Path) -> Profile | Radio:
    return load_radio(path) if path.parent == RADIOS else load_profile(path)


# ------------------------------------------------------------------------------------------------------------ the files


def test_the_classes_of_devices_are_there() -> None:
    wanted = {"raspberry-pi-zero-2w", "raspberry-pi-3b", "raspberry-pi-3b-plus", "raspberry-pi-4b", "raspberry-pi-5"}
    wanted |= {"jetson-nano", "jetson-orin-nano-8gb", "esp32", "esp32-s3", "stm32h7a3", "nrf52840", "nrf9160"}
    wanted |= {"android-phone", "n100-gateway", "x86-server"}
    assert wanted <= set(profile_names())
    assert {load_radio(name).kind for name in radio_names()} == {"wifi", "ble", "lora", "cellular", "ethernet"}
    assert not set(profile_names()) & set(radio_names()), "a name means one thing"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_and_every_number_says_where_it_is_from(path: Path) -> None:
    found = by_file(path)
    assert found.name == path.stem
    assert found == load_either(found.name) == load_either(path)
    known = dict(numbers(found))
    assert set(known) == written(tomllib.loads(path.read_text())) != set()
    for key, number in known.items():
        assert number.how in HOW, key
        assert number.how != "measured", f"{key}: no device was measured for these files"
        assert found.sources[number.source].strip(), key
        if number.how == "estimated":
            assert number.note, f"{key}: an estimate without its assumption"
    assert {number.source for number in known.values()} == set(found.sources), "a source that no number is from"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_is_finite_and_sane(path: Path) -> None:
    for key, number in numbers(by_file(path)):
        if isinstance(number, Curve):
            continue
        assert isinstance(number, Number | Ratio | Count | Bytes | Time)
        assert math.isfinite(number.value)
        low, high = SANE[max((ending for ending in SANE if key.endswith(ending)), key=len)]
        assert low <= number.value <= high, key


@pytest.mark.parametrize("name", profile_names())
def test_the_power_of_a_device_rises(name: str) -> None:
    profile = load_profile(name)
    power = profile.power
    rising = (power.sleep_w, power.light_sleep_w, power.idle_w, power.active_w, power.peak_w)
    watts = [number.value for number in rising if number is not None]
    assert watts == sorted(watts)
    if power.curve is not None:
        uses, curve = zip(*power.curve.points, strict=True)
        assert list(uses) == sorted(set(uses))
        assert list(curve) == sorted(curve)
        assert power.active_w is not None
        assert curve[-1] <= power.active_w.value
    if profile.runs == "python":
        assert power.idle_w is not None
        assert power.active_w is not None
        assert profile.radios


@pytest.mark.parametrize("name", radio_names())
def test_joules_per_byte_are_watts_over_bytes_per_second(name: str) -> None:
    """Where a radio has all three, and they are not of different conditions, they agree within a tenth."""
    radio = load_radio(name)
    for joules, watts, rate in (
        (radio.energy.tx_j_per_byte, radio.energy.tx_w, radio.rate.up_bytes_per_s),
        (radio.energy.rx_j_per_byte, radio.energy.rx_w, radio.rate.down_bytes_per_s),
    ):
        if joules is not None and watts is not None and rate is not None:
            assert joules.value == pytest.approx(watts.value / rate.value, rel=0.1)


@pytest.mark.parametrize("name", profile_names())
def test_a_chunk_fits_what_its_device_takes(name: str) -> None:
    limits = load_profile(name).limits
    if limits.chunk_bytes is not None and limits.packet_bytes is not None:
        assert limits.chunk_bytes.value < limits.packet_bytes.value


def test_the_longer_the_symbol_the_dearer_the_byte() -> None:
    radios = [load_radio(f"lorawan-eu868-sf{factor}") for factor in range(7, 13)]
    joules = [radio.energy.tx_j_per_byte.value for radio in radios if radio.energy.tx_j_per_byte]
    payloads = [radio.limits.payload_bytes.value for radio in radios if radio.limits.payload_bytes]
    assert joules == sorted(set(joules))
    assert payloads == [222, 222, 115, 51, 51, 51]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_part_of_what_is_installed(path: Path) -> None:
    settings = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ".".join(path.parent.relative_to(FOLDER.parent).parts)
    assert any(fnmatch(package, pattern) for pattern in settings["packages"]["find"]["include"])
    assert any(fnmatch(path.name, pattern) for pattern in settings["package-data"][package])


def test_every_number_of_the_schemas_has_a_range() -> None:
    keys = [*number_keys(Profile, ""), *number_keys(Radio, "")]
    assert len(keys) > 50
    for key in keys:
        low, high = sane_range(key)
        assert low < high


def number_keys(schema: type, above: str) -> Iterator[str]:
    for spec in fields_of(schema):
        hint = bare(field_types(schema)[spec.name])
        if is_section(hint) and not issubclass(hint, Known):
            yield from number_keys(hint, f"{above}{spec.name}.")
        elif is_section(hint) and hint not in (Curve, Names):
            yield f"{above}{spec.name}"


def test_every_way_of_knowing_is_explained() -> None:
    assert get_args(How) == tuple(HOW)


# ------------------------------------------------------------------------------------------------------ what is refused

DEVICE = """\
schema = 1
name = "my-board"
title = "My board"
kind = "sbc"
runs = "python"
radios = ["wifi-sbc"]

[power]
idle_w = { value = 1.2, how = "measured", source = "meter" }
active_w = { value = 3.4, how = "measured", source = "meter", note = "all cores" }
curve = { points = [[0, 1.2], [0.5, 3.0], [1, 3.4]], how = "measured", source = "meter" }

[sources]
meter = "A meter"
"""
METER = "how = 'measured', source = 'meter' }"


def refused(tmp_path: Path, text: str) -> ConfigError:
    path = tmp_path / "my-board.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_either(path)
    assert caught.value.file == str(path)
    return caught.value


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DEVICE.replace('["wifi-sbc"]', '["wifi-sbc", "radios/mine.toml"]'))
    profile = load_either(path)
    assert isinstance(profile, Profile)
    assert profile.radios == ("wifi-sbc", str(tmp_path / "radios/mine.toml"))
    (tmp_path / "radios").mkdir()
    (tmp_path / "radios/mine.toml").write_text('name = "r"\ntitle = "R"\nkind = "lora"\n')
    assert load_radio(profile.radios[1]).title == "R"
    assert isinstance(load_either(tmp_path / "radios/mine.toml"), Radio)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("idle_w = {", "idel_w = {", 9, "power.idel_w", "unknown key (did you mean 'idle_w'?)"),
        ('title = "My board"', 'titel = "My board"', 3, "titel", "unknown key (did you mean 'title'?)"),
        ("value = 1.2", "value = 1.2, unit = 2", 9, "power.idle_w.unit", "unknown key"),
        ('"meter" }\nactive', '"metre" }\nactive', 9, "power.idle_w.source", "does not have (did you mean 'meter'?)"),
        ('meter = "A meter"', "", 9, "power.idle_w.source", "names 'meter', which [sources] does not have"),
        ('meter = "A meter"', 'meter = " "', 13, "sources", "every source needs a title"),
        ('how = "measured", source = "meter" }\nactive', 'source = "meter" }\nactive', 9, "power.idle_w.how", "is missing"),
        ('how = "measured", source = "meter" }\nactive', 'how = "measured" }\nactive', 9, "power.idle_w.source", "is missing"),
        ('value = 1.2, how = "measured"', 'value = 1.2, how = "guessed"', 9, "power.idle_w.how", 'expected "measured" or "read"'),
        ("value = 1.2, ", "", 9, "power.idle_w.value", "is missing"),
        ('{ value = 1.2, how = "measured", source = "meter" }', "1.2", 9, "power.idle_w", "for example { value = 2.7, how ="),
        ("value = 1.2", 'value = "1.2 W"', 9, "power.idle_w.value", "expected a number"),
        ("value = 1.2", "value = true", 9, "power.idle_w.value", "expected a number"),
        ("value = 1.2", "value = -1.2", 9, "power.idle_w.value", "must be at least 0, found -1.2"),
        ("value = 1.2", "value = nan", 9, "power.idle_w.value", "must be a finite number"),
        ("value = 1.2", "value = inf", 9, "power.idle_w.value", "must be a finite number"),
        ("value = 1.2", "value = 3.5", 9, "power.idle_w.value", "is more than active_w: 3.5 > 3.4"),
        ("[0, 1.2]", "[0, 1.3]", 11, "power.curve.points", "must begin at idle_w, 1.2"),
        ("[0, 1.2]", "[0.1, 1.2]", 11, "power.curve.points", "utilisation must rise from 0 to 1"),
        ("[1, 3.4]", "[0.9, 3.4]", 11, "power.curve.points", "utilisation must rise from 0 to 1"),
        ("[0.5, 3.0]", "[0.5, 3.0], [0.5, 3.1]", 11, "power.curve.points", "utilisation must rise from 0 to 1"),
        ("[0.5, 3.0]", "[0.5, 3.5]", 11, "power.curve.points", "must not be negative or fall"),
        ("[0.5, 3.0]", "[0.5]", 11, "power.curve.points", "must be two or more pairs"),
        ("[0.5, 3.0]", "[0.5, nan]", 11, "power.curve.points.1.1", "must be a finite number"),
        ("[[0, 1.2], [0.5, 3.0], [1, 3.4]]", "[]", 11, "power.curve.points", "must be two or more pairs"),
        ('["wifi-sbc"]', '["wifi-sbb"]', 6, "radios.0", "there is no radio 'wifi-sbb' (did you mean 'wifi-sbc'?)"),
        ('"my-board"', '"My board"', 2, "name", "must be 1 to 40 of a-z"),
        ('"sbc"', '"toaster"', 4, "kind", 'expected "mcu" or'),
        ('runs = "python"\n', "", 1, "runs", "is missing"),
        ("schema = 1", "schema = 2", 1, "schema", "expected 1"),
        ("[power]", f"cpu.cores = {{ value = 0, {METER}\n[power]", 8, "cpu.cores.value", "must be at least 1"),
        ("[power]", f"cpu.cores = {{ value = 2.5, {METER}\n[power]", 8, "cpu.cores.value", "expected a whole number"),
        ("[power]", f"memory.ram_bytes = {{ value = '1 lot', {METER}\n[power]", 8, "memory.ram_bytes.value", "expected a size"),
        ("[power]", f"uncertainty_ratio = {{ value = 1.5, {METER}\n[power]", 8, "uncertainty_ratio.value", "must be at most 1"),
        ("[power]", f"limits.codecs = {{ value = [], {METER}\n[power]", 8, "limits.codecs.value", "one name or more, each once"),
        (
            "value = 3.4",
            "value = 3.4e6",
            10,
            "power.active_w.value",
            "3.4e+06 W cannot be: a device of its kind draws at most 200",
        ),
        ("[1, 3.4]]", "[1, 3.4e12]]", 11, "power.curve.value", "3.4e+12 W cannot be"),
        ("[power]", f"cpu.cores = {{ value = 9999999, {METER}\n[power]", 8, "cpu.cores.value", "cannot be: it is from 1 to"),
        (
            "[power]",
            f"cpu.clock_hz = {{ value = 1.5, {METER}\n[power]",
            8,
            "cpu.clock_hz.value",
            "1.5 cannot be: it is from 1000",
        ),
        ("[power]", f"memory.ram_bytes = {{ value = '9999999GiB', {METER}\n[power]", 8, "memory.ram_bytes.value", "cannot be"),
        ("[power]", "[power", 8, None, "not TOML"),
    ],
)
def test_a_file_is_refused_with_what_and_where(tmp_path: Path, old: str, new: str, line: int, key: str, words: str) -> None:
    assert old in DEVICE
    error = refused(tmp_path, DEVICE.replace(old, new, 1))
    assert (error.key, error.line) == (key, line)
    assert words in str(error)


RADIO = """\
name = "mine"
title = "Mine"
kind = "lora"
[energy]
tail_w = { value = 1.0, how = "read", source = "s" }
tail_s = { value = 2.0, how = "read", source = "s" }
[limits]
duty_cycle_ratio = { value = 0.01, how = "read", source = "s" }
[sources]
s = "S"
"""


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ('tail_w = { value = 1.0, how = "read", source = "s" }', "", "energy.tail_s", "is given without tail_w"),
        ('tail_s = { value = 2.0, how = "read", source = "s" }', "", "energy.tail_w", "is given without tail_s"),
        ("value = 0.01", "value = 1.01", "limits.duty_cycle_ratio.value", "must be at most 1"),
        ("value = 1.0", "value = -1", "energy.tail_w.value", "must be at least 0"),
        ("tail_w", "tale_w", "energy.tale_w", "unknown key (did you mean 'tail_w'?)"),
        ('s = "S"', 't = "T"', "energy.tail_w.source", "names 's'"),
        ("[energy]", "[power]", "power", "unknown key"),
    ],
)
def test_a_radio_is_refused_with_what_and_where(tmp_path: Path, old: str, new: str, key: str, words: str) -> None:
    assert old in RADIO
    error = refused(tmp_path, RADIO.replace(old, new, 1))
    assert error.key == key
    assert words in str(error)


@pytest.mark.parametrize("loader", [load_profile, load_radio, load_either])
def test_a_name_that_is_none_is_told_the_nearest(loader: object) -> None:
    assert callable(loader)
    with pytest.raises(ConfigError, match="`edgemw profile list` shows all"):
        loader("toaster")
    with pytest.raises(ConfigError, match="cannot be read"):
        loader("nowhere/toaster.toml")
    with pytest.raises(ConfigError, match="there is no profile"):
        loader("../firmware_profiles/esp32")
    with pytest.raises(ConfigError) as caught:
        load_either("raspbery-pi-4b")
    assert caught.value.suggestion == "raspberry-pi-4b"


@given(text=st.text(max_size=200))
def test_any_text_is_loaded_or_refused(text: str) -> None:
    for cls in (Profile, Radio):
        with pytest.raises(ConfigError):
            load(cls, text, "x.toml", cwd=Path("/"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_written_loads_as_the_same(path: Path) -> None:
    """A profile that a program changes can be written to a file."""
    found = by_file(path)
    assert load(type(found), toml_text(found), "x.toml", cwd=Path("/")).value == found
