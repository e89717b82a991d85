"""What a device really takes is what `edgemw check` says that it needs; one without room says so in its status."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from edgemw.app.room import Load, memory_bytes
from edgemw.app.sections import Codec, Serving
from edgemw.core.bundle import read_bundle
from tests.system.fleet import BUNDLE, Fleet, edgemw, fact

TASK = """\
from torch import nn
from edgemw import Task


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 700), nn.ReLU(), nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 10))


task = Task("large", module, loss="cross_entropy", input=(64,), training={"lr": 0.05, "batch_size": 32, "epochs": 1})
"""
SMALL = """\
name = "small"
title = "Small"
kind = "sbc"
runs = "python"
memory.ram_bytes = { value = "95MiB", how = "measured", source = "m" }
sources.m = "M"
"""


def large_bundle(folder: Path) -> Path:
    (folder / "large_task.py").write_text(TASK)
    done = edgemw("compile", f"{folder / 'large_task.py'}:task", "-o", folder / "large.edge", timeout_s=240)
    assert done.returncode == 0, done.stderr
    return folder / "large.edge"


def peak_bytes(process: int) -> int:
    """The most memory that a process, or one below it, has had."""
    tree = [process, *(child.pid for child in psutil.Process(process).children(recursive=True))]
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in tree]
    return max(int(found[1]) << 10 for text in texts if (found := re.search(r"VmHWM:\s+(\d+) kB", text)))


@pytest.mark.parametrize("codec", ["lattice", "powersgd"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_device_takes_the_memory_that_is_said(fleet: Fleet, tmp_path: Path, codec: str, size: str) -> None:
    bundle = BUNDLE if size == "small" else large_bundle(tmp_path)
    fleet.fog("top", task={"bundle": str(bundle), "rounds": 0}, plan={"epochs": 1}, codec={"use": codec})
    fleet.device("device-0", "top")
    fleet.start("top", "device-0")
    fleet.until(lambda s: "device-0" in s and fact(s["device-0"], "release") >= 4)
    data = bundle.read_bytes()
    said = memory_bytes(Load(read_bundle(data).manifest, 32, Codec(use=codec), len(data)), Serving())
    assert peak_bytes(fleet.processes["device-0"].pid) == pytest.approx(said, rel=0.25)


def test_a_device_without_room_says_so(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    fleet.fog("top")
    path = fleet.device("device-0", "top")
    path.write_text(path.read_text().replace("[node]\n", '[node]\nprofile = "small.toml"\n'))
    fleet.start("top", "device-0")
    seen = fleet.until(lambda s: "device-0" in s and s["device-0"].status.reason != "")
    assert "96 MiB of memory is needed, and small has 95 MiB" in seen["device-0"].status.reason
