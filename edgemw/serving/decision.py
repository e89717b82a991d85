"""The class that outputs speak for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def class_of(outputs: npt.NDArray[Any]) -> tuple[int, float]:
    """The likeliest class of one sample and its probability: softmax of several outputs, sigmoid of a single one."""
    logits = outputs.astype(np.float64).reshape(-1)
    if logits.size == 1:
        logits = np.array([0.0, logits[0]])
    label = int(logits.argmax())
    return label, float(1 / np.exp(logits - logits[label]).sum())
