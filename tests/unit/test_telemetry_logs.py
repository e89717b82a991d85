"""Log lines: what people and machines read, and what nobody may."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from edgemw.telemetry import logs
from edgemw.telemetry.logs import JsonFormatter, TextFormatter

log = logging.getLogger("edgemw.test")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("edgemw")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def record(text: str, *values: object, level: int = logging.WARNING, **facts: Any) -> logging.LogRecord:
    made = logging.LogRecord("edgemw.test", level, __file__, 1, text, values, None)
    made.created = 1767268800.5  # 2026-01-01T12:00:00.5Z
    if facts:
        made.facts = facts
    return made


def test_a_line_of_text() -> None:
    line = TextFormatter("device-0").format(
        record("link down: %s", "timed out", task="digits", wait_s=0.123456789, why='a "b"\n')
    )
    start = '2026-01-01T12:00:00Z level=warning node=device-0 msg="link down: timed out"'
    assert line == start + r' task=digits wait_s=0.123457 why="a \"b\"\n"'


def test_a_line_of_json() -> None:
    line = JsonFormatter("device-0").format(record("up", level=logging.INFO, release=3, loss=float("nan"), ok=True))
    assert json.loads(line) == {
        "time": "2026-01-01T12:00:00Z",
        "level": "info",
        "node": "device-0",
        "msg": "up",
        "release": 3,
        "loss": "nan",
        "ok": True,
    }


def test_a_message_cannot_forge_a_line() -> None:
    text = "first\n2026-01-01T12:00:00Z level=error msg=forged"
    assert "\n" not in TextFormatter("n").format(record(text, fact=text))
    assert "\n" not in JsonFormatter("n").format(record(text, fact=text))


def test_a_fact_does_not_replace_a_field() -> None:
    line = json.loads(JsonFormatter("fog-0").format(record("taken", node="device-1", msg="x")))
    assert (line["node"], line["fact_node"], line["msg"], line["fact_msg"]) == ("fog-0", "device-1", "taken", "x")


@pytest.mark.parametrize("formatter", [TextFormatter("n"), JsonFormatter("n")])
@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("started", {"password": "hunter2"}),
        ("started", {"mqtt_password": "hunter2"}),
        ("started", {"api.token": "hunter2"}),
        ("cannot reach mqtt://me:hunter2@broker:1883", {}),
        ("started", {"broker": "mqtt://me:hunter2@broker:1883"}),
        ("refused: password=hunter2, try again", {}),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", {}),
    ],
)
def test_secrets_are_not_written(formatter: logging.Formatter, text: str, facts: dict[str, Any]) -> None:
    line = formatter.format(record(text, **facts))
    assert "hunter2" not in line
    assert "***" in line


def test_a_traceback_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "json"):
        logs.configure("info", "json" if form == "json" else "text", "n")
        try:
            raise ValueError("mqtt://me:hunter2@broker")
        except ValueError:
            log.exception("failed")
        err = capfd.readouterr().err
        assert "Traceback" in err
        assert "ValueError: mqtt://***@broker" in err
        assert len(err.splitlines()) == 1 if form == "json" else err.count("\n    ") >= 3


def test_the_level_counts_and_the_last_configuration_holds(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "json", "a")
    logs.configure("info", "text", "b")
    log.debug("quiet")
    log.info("loud", extra={"facts": {"x": 1}})
    logging.getLogger("somebody.else").info("quiet")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith('level=info node=b msg="loud" x=1')
