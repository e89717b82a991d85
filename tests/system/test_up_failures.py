"""`edgemw up` where something cannot run: it ends, says why, and reports what was done until then."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.system.fleet import environment
from tests.system.test_up import QUICKSTART, SMALL, Run, flags


def test_a_run_ends_when_no_device_is_left(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "onnxruntime.py").write_text('raise ImportError("onnxruntime is not installed here")\n')
    path = f"{library}:{environment()['PYTHONPATH']}"
    run = Run(tmp_path / "out", *flags(*SMALL, "tiers.device.count=1"), env={"PYTHONPATH": path})
    run.process.communicate(timeout=200)
    assert run.process.returncode == 1
    last = run.errors.splitlines()[-1]
    assert "no device is left: device-0: ended with exit code 1 too often" in last
    assert "onnxruntime is not installed here" in last


def test_a_run_ends_when_every_way_to_the_top_is_gone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] - 1  # the top has it, counted up
        address = f"tiers.fog.telemetry.http=127.0.0.1:{port}"
        run = Run(tmp_path / "out", *flags(*SMALL, address))
        run.process.communicate(timeout=120)
    assert run.process.returncode == 1
    assert "no device is left: fog-0: telemetry.http: cannot listen on" in run.errors.splitlines()[-1]


def test_a_device_that_cannot_run_is_in_the_summary(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tiers.device.serving.http=127.0.0.1:{taken.getsockname()[1]}"
        run = Run(tmp_path / "out", *flags(*SMALL, address, "task.rounds=2"))
        summary = run.summary()
    assert run.process.returncode == 1
    assert summary["finished"] is True
    assert summary["failed"].keys() == {"device-0"}
    assert "serving.http: cannot listen on" in summary["failed"]["device-0"]
    assert summary["updates_counted"] == summary["updates_sent"] > 0


def test_what_was_done_before_the_broker_died_is_reported(tmp_path: Path) -> None:
    run = Run(tmp_path / "out", *flags(*SMALL, "task.rounds=0"))
    run.until_release(3)
    next(child for child in run.children() if "mosquitto" in child.cmdline()[0]).kill()
    summary = run.summary()
    assert run.process.returncode == 4
    assert summary["error"].startswith("the broker ended")
    assert summary["rounds"] >= 3
    assert summary["updates_sent"] is None
    assert json.loads((tmp_path / "out/report.json").read_text()).items() >= summary.items()
    assert "the broker ended" in run.errors.splitlines()[-1]


def test_a_run_in_which_nobody_learned_has_failed(tmp_path: Path) -> None:
    file = tmp_path / "edgemw.toml"
    bundle = QUICKSTART.with_name("digits.edge")
    own = '[[tiers.device.data]]\nuse = "sklearn.datasets:load_digits"\n'  # gives something else than (x, y)
    file.write_text(QUICKSTART.read_text().replace("digits.edge", str(bundle)) + own)
    run = Run(tmp_path / "out", *flags(*SMALL, "task.rounds=1"), file=file)
    summary = run.summary()
    assert run.process.returncode == 1
    assert summary["updates_counted"] == 0
    assert summary["error"] == "no update was ever counted, so nothing was learned"
    assert summary["reasons"].keys() == {"device-0", "device-1"}
    assert "data refused: sklearn.datasets:load_digits must give a tuple" in summary["reasons"]["device-0"]


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgemw", "up", str(QUICKSTART), "--out", str(tmp_path / "out"), *flags(*SMALL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("preparing")
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""
