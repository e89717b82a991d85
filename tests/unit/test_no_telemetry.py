"""Nothing is told to a stranger: ONNX Runtime's own telemetry is off wherever edgemw uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgemw.core.bundle import read_bundle
from edgemw.serving.store import ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
PREDICT = """
import numpy as np
import edgemw
print(edgemw.Predictor(%r).predict(np.zeros((1, 64), np.float32)).shape)
"""
NOTED = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")
"""Variables that would keep it quiet without us."""


def test_a_prediction_leaves_no_identifier_of_the_machine(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    home.mkdir()
    bundle = read_bundle(DIGITS.read_bytes())
    ReleaseStore(store, 3).save("digits", bundle, 1, 0, bundle.theta0)
    env = {name: value for name, value in os.environ.items() if name not in NOTED and not name.startswith("XDG_")}
    words = [sys.executable, "-c", PREDICT % str(store)]
    done = subprocess.run(words, env=env | {"HOME": str(home)}, capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 10)\n"
    assert list(home.rglob("*")) == []
