"""`edgemw doctor`: what it says of a broker that it cannot look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemw.cli.main import main

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "edgemw.toml"


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "give --config FILE or --broker URL"), (["--config", str(QUICKSTART)], "edgemw.toml starts one of its own")],
)
def test_it_says_why_no_broker_was_looked_at(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) in (0, 1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "broker  " in line]
    assert "not checked" in line
    assert said in line
