"""The processes that `edgemw up` looks after: what becomes of one that ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemw.app.processes import RESTART_AFTER_S, Processes
from tests.system.fleet import environment

PATIENCE_S = 30.0


def fog_file(folder: Path, state: str) -> Path:
    """A fog node's file."""
    path = folder / "fog.toml"
    path.write_text(f'net = "n"\n[node]\nid = "a"\nstate = "{state}"\n[telemetry]\nhttp = ""\n')
    return path


def tended_until(processes: Processes, true: Callable[[list[str]], bool]) -> list[str]:
    """Tend until something is true of what was said; gives that."""
    lines: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while not true(lines):
        assert time.monotonic() < deadline
        lines += processes.tend()
        time.sleep(0.05)
    return lines


def test_what_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    processes = Processes(environment())
    processes.start("a", ["fog", "--config", str(tmp_path / "none.toml")], tmp_path / "a.log")
    lines = tended_until(processes, lambda _: processes.ended("a"))
    assert processes.failures == {"a": f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"}
    assert lines == [f"a was refused: {processes.failures['a']}"]
    assert processes.restarts == {}


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_node_that_crashed_is_started_again_unless_it_was_interrupted(tmp_path: Path, interrupted: bool) -> None:
    (tmp_path / "state").touch()  # a file where a folder is needed: exit code 1
    processes = Processes(environment())
    try:
        processes.start("a", ["fog", "--config", str(fog_file(tmp_path, "state"))], tmp_path / "a.log")
        lines = tended_until(processes, bool)
        assert "a ended with exit code 1; it is started again" in lines[0]
        if interrupted:
            processes.interrupt("a")
            after = time.monotonic() + 2 * RESTART_AFTER_S
            tended_until(processes, lambda _: time.monotonic() > after)
            assert processes.ended("a")
            assert processes.restarts == {}
        else:
            tended_until(processes, lambda _: processes.restarts == {"a": 1})
            assert not processes.ended("a")
    finally:
        processes.stop(at_once=True)
