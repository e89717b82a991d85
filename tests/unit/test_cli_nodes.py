"""What the commands of a node say to the file of another command."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemw.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.mark.parametrize(
    ("command", "file", "instead"),
    [
        ("fog", "device.toml", "is the file of a device: edgemw device --config"),
        ("device", "fog.toml", "is the file of a fog: edgemw fog --config"),
        ("device", "edgemw.toml", "is the file of a deployment: edgemw up"),
    ],
)
def test_a_file_of_another_kind_is_told_its_command(
    command: str, file: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--config", str(EXAMPLES / file)]) == 3
    assert instead in capsys.readouterr().err
