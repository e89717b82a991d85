"""A task whose graphs are never run, for nets whose devices only pretend to train."""

from __future__ import annotations

import numpy as np

from edgemw.core.bundle import Bundle, Manifest, Slot, Spec

TASK = "toy"


def toy_bundle(size: int = 64, value: float = 0.0) -> Bundle:
    """A bundle of so many parameters, all with this value."""
    manifest = Manifest(
        name=TASK,
        layout=(Slot("w", (size,), 0),),
        input=Spec((1,), "float32"),
        target=Spec((), "int64"),
        output=Spec((1,), "float32"),
        loss="mse",
        metrics=("mse",),
    )
    return Bundle(manifest, b"infer", b"train", np.full(size, value, np.float32))
