"""`edgemw profile`: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemw.cli.main import main
from edgemw.cli.profile import amount
from edgemw.profiles.catalogue import profile_names, radio_names
from edgemw.profiles.known import Number


def test_list_names_every_device_and_radio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "list"]) == 0
    devices, radios = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in devices.splitlines()[1:]] == list(profile_names())
    assert [line.split()[0] for line in radios.splitlines()[1:]] == list(radio_names())
    pi = next(line for line in devices.splitlines() if line.startswith("raspberry-pi-4b"))
    assert pi.split(maxsplit=7)[1:7] == ["sbc", "python", "2.7", "W", "6.4", "W"]


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["devices"]] == list(profile_names())
    assert [row["name"] for row in document["radios"]] == list(radio_names())
    assert {"name": "gap9", "kind": "accelerator", "runs": "none", "radios": []}.items() <= document["devices"][3].items()


def test_show_prints_every_number_with_how_it_is_known_and_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "show", "raspberry-pi-4b"]) == 0
    printed = capsys.readouterr().out
    assert "power.idle_w 2.7 read dramble" in " ".join(printed.split())
    assert "540 mA without a screen" in printed
    assert "cpu.clock_hz 1500000000 recalled rpi_docs" in " ".join(printed.split())
    assert "pidramble.com" in printed.partition("\nsources\n")[2]
    assert main(["profile", "show", "jetson-nano"]) == 0
    assert "power.curve 0:2.2 1:2.5 computed" in " ".join(capsys.readouterr().out.split())


def test_show_as_json_leaves_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "show", "nb-iot-nrf9160", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["energy"]["session_j"]["value"] == 0.36
    assert document["sources"][document["energy"]["session_j"]["source"]].startswith("boaks")
    assert "rate" not in document
    assert "tail_w" not in document["energy"]
    assert main(["profile", "show", "ethernet-1g", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["energy"]["tx_j_per_byte"]["value"] == 0.0


def test_show_opens_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = "Mine"\nkind = "gateway"\nruns = "python"\n')
    assert main(["profile", "show", str(path)]) == 0
    assert "mine: Mine" in capsys.readouterr().out
    path.write_text('name = "mine"\ntitle = "Mine"\nkind = "gatway"\nruns = "python"\n')
    assert main(["profile", "show", str(path)]) == 3
    assert f"{path}:3: kind: expected" in capsys.readouterr().err


def test_show_refuses_a_profile_whose_radio_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "m"\ntitle = "M"\nkind = "sbc"\nruns = "python"\nradios = ["missing.toml"]\n')
    assert main(["profile", "show", str(path)]) == 3
    assert "missing.toml: cannot be read" in capsys.readouterr().err


def test_show_refuses_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "show", "raspbery-pi-4b"]) == 3
    assert "did you mean 'raspberry-pi-4b'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 J"),
        (2.7, "2.7 J"),
        (0.9996, "1 J"),
        (0.9994, "999 mJ"),
        (4.5e-6, "4.5 µJ"),
        (1.25e8, "125 MJ"),
        (7e-14, "7e-14 J"),
    ],
)
def test_an_amount_has_three_digits_and_a_prefix(value: float, text: str) -> None:
    assert amount(Number(value=value, how="read", source="s"), "J") == text


def test_an_amount_that_is_not_known_is_a_dash() -> None:
    assert amount(None, "W") == "-"


def test_detect_says_what_this_machine_is_and_by_what(capsys: pytest.CaptureFixture[str]) -> None:
    ended = main(["profile", "detect", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert ended == (0 if document["profile"] else 1)
    assert document["profile"] in (None, *profile_names())
    assert document["known_by"]
    assert main(["profile", "detect"]) == ended
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(document["profile"] or "no profile")
    assert [line.split()[0] for line in lines[2:]] == list(document["energy_sources"])
