"""The units are what systemd takes, and leave little open. None was run: there is no systemd to run them where tests run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgemw.cli.main import main

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
MOST_EXPOSED = 2.0  # of 10; systemd calls up to 2 "OK"


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd is not installed")
    return subprocess.run([found, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_knows_every_option(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/edgemw/bin/edgemw", sys.executable))
    done = analyze("verify", copy)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_little_is_left_open(unit: Path) -> None:
    done = analyze("security", "--offline=true", unit)
    match = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert match is not None, done.stdout + done.stderr
    assert float(match[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_is_started_is_a_command_that_there_is(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = re.findall(r"^ExecStart=/opt/edgemw/bin/edgemw (\S+) --config /etc/edgemw/(\S+)\.toml$", unit.read_text(), re.M)
    assert words[0] == words[1]
    with pytest.raises(SystemExit) as ended:
        main([words[0], "--help"])
    assert ended.value.code == 0
    assert "--config" in capsys.readouterr().out


def test_a_unit_and_its_twin_differ_in_the_role_alone() -> None:
    device, fog = (unit.read_text() for unit in UNITS)
    differences = [(a, b) for a, b in zip(device.splitlines(), fog.splitlines(), strict=True) if a != b]
    same = [(a, b) for a, b in differences if a.replace("device", "fog") not in (b, b.replace("fog node", "fog"))]
    assert not same, json.dumps(same)
