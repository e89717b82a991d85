"""The line that a device logs now and then."""

from __future__ import annotations

from typing import Any

import pytest

from edgemw.telemetry import logs
from edgemw.telemetry.summary import Summary

FACTS: dict[str, int | float | str] = {"release": 3, "updates_sent": 4, "updates_pending": 1, "last_update_s": 0.5}


def test_a_task_that_has_moved_on_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text", "device-0")
    summary = Summary()

    def lines(*machines: Any) -> list[str]:
        summary.tell(machines)
        return [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]

    head = 'level=info node=device-0 msg="summary" task='
    idle, har = ("digits", "idle", "", FACTS), ("har", "waiting", "no bundle", {"release": -1})
    told = f"{head}digits state=idle release=3 trained=4 pending=1"
    assert lines(idle, har) == [told, f'{head}har state=waiting reason="no bundle"']
    assert lines(idle, har) == []
    assert lines(("digits", "idle", "", FACTS | {"last_update_s": 60.5})) == []
    assert lines(("digits", "idle", "", FACTS | {"updates_pending": 0})) == [told.replace("pending=1", "pending=0")]
    assert lines(("digits", "idle", "data refused", FACTS)) == [f'{told} reason="data refused"']
