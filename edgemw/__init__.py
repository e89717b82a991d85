"""edgemw: a fleet of small machines learns one model over MQTT and uses it where the data is."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# From 1.29 ONNX Runtime uploads from Linux what models it runs, unless this is there before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

_PUBLIC = {"Task": "edgemw.compile.task", "Predictor": "edgemw.serving.predictor"}
__all__ = ["Predictor", "Task", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgemw' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
