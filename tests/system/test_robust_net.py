"""A net of processes in which one device lies: it learns where windows are merged robustly, and does not where they are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from edgemw.transport import tethered
from edgemw.transport.broker import start_broker
from tests.system.fleet import BUNDLE, Fleet, edgemw, environment, fact

DEVICES, ROUNDS = 5, 25
LIAR = "device-0"
LYING = """
import sys
from dataclasses import replace
from edgemw.cli.main import main
from edgemw.device import agent

honest = agent.train
def train(*given, **named):
    trained = honest(*given, **named)
    return replace(trained, delta=-10 * trained.delta)

agent.train = train
sys.exit(main(sys.argv[1:]))
"""


def learn(folder: Path, *, robust: str, lying: bool) -> tuple[float, str]:
    """Train to the end: the accuracy of the last release, and what `status` says of the top while it trains."""
    folder.mkdir()
    with start_broker("mosquitto", folder / "broker") as broker, Fleet(folder, broker.url) as fleet:
        window = {"deadline": "20s", "children": DEVICES, "robust": robust}
        task = {"bundle": str(BUNDLE), "rounds": ROUNDS}
        fleet.fog("top", task=task, window=window, plan={"steps": 40, "lr": 0.2})
        digits = load_digits()
        order = np.random.default_rng(1).permutation(len(digits.data))
        names = [f"device-{n}" for n in range(DEVICES)]
        for n, name in enumerate(names):
            rows = order[n::DEVICES]
            x, split = (digits.data[rows] / 16).astype(np.float32), np.arange(rows.size) % 5 == 0
            np.savez(folder / f"{name}.npz", x=x, y=digits.target[rows], split=split)
            fleet.device(name, "top", folder / f"{name}.npz")
        fleet.start("top", *(name for name in names if name != LIAR))
        if lying:
            script = folder / "lying.py"
            script.write_text(LYING)
            with (folder / f"{LIAR}.log").open("ab") as log:
                tether = [sys.executable, "-I", "-S", tethered.__file__, str(os.getpid())]
                command = [*tether, sys.executable, str(script), "device", "--config", str(folder / f"{LIAR}.toml")]
                fleet.processes[LIAR] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        else:
            fleet.start(LIAR)
        states = fleet.until(lambda s: "top" in s and s["top"].status.state == "finished", timeout_s=120)
        metrics = fleet.get("top", "telemetry", "/metrics").splitlines()
        if robust:
            assert fact(states["top"], "children_bounded") >= (ROUNDS if lying else 0)
            assert any(line.startswith("edgemw_fog_bounded_children_total{") for line in metrics)
        line = next(line for line in metrics if line.startswith("edgemw_round_measure{") and '"accuracy"' in line)
        top = states["top"].status
        for name in ("top", *names):
            fleet.processes[name].terminate()
        for name in ("top", *names):
            fleet.wait(name)
        audited = edgemw("audit", *(folder / name for name in ("top", *names)))
        assert audited.returncode == 0, audited.stdout
        return float(line.rpartition(" ")[2]), top.reason


def test_a_net_with_a_device_that_lies_learns_where_windows_are_bounded_and_fails_where_they_are_not(tmp_path: Path) -> None:
    undisturbed, _ = learn(tmp_path / "undisturbed", robust="", lying=False)
    bounded, said = learn(tmp_path / "bounded", robust="norm", lying=True)
    lost, nothing = learn(tmp_path / "lost", robust="", lying=True)
    assert undisturbed > 0.9
    assert bounded >= undisturbed - 0.03
    assert lost < undisturbed - 0.3
    assert said == f"bounded the updates of {LIAR} in 10 of its last 10 windows"
    assert not nothing
