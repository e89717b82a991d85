"""The checks that a release has to pass before it is served. They run beside the release that is being served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgemw.core.bundle import Bundle, Manifest, Vector
from edgemw.core.errors import EdgeError
from edgemw.core.reference import difference, reference_input
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Array, Oracle, Predict

CHECK_BATCH = 64
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""How far the loss of the served outputs may be from the training graph's; the second is float32's rounding of a tiny loss."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the checks of a release.

    Attributes:
        reason: why it must not be served; "" when it may be.
        quantised: its int8 graph; empty where it is served as float32.
        note: why it is served as float32 where int8 was asked for; "" otherwise.
    """

    reason: str = ""
    quantised: bytes = b""
    note: str = ""


def check_release(predict: Predict, oracle: Oracle, theta: Vector, samples: Samples | None) -> str:
    """Why a release must not be served; "" when it is fine.

    The outputs have the manifest's shape and are finite; and where the loss can be computed from them, it is the loss that
    the training graph gives for the same theta and samples: the two graphs of the bundle then are the same model.

    Args:
        predict: the release, as it would be served.
        oracle: of the same task.
        theta: float32[P] of the release.
        samples: fitted held-out samples; None or empty where the device has none.
    """
    held_out = samples is not None and len(samples) > 0
    manifest = oracle.manifest
    x = samples.x[:CHECK_BATCH] if samples is not None and held_out else _canary(manifest)
    try:
        outputs = predict(x)
        reason = _check_outputs(outputs, len(x), manifest)
        if not reason and samples is not None and held_out and _comparable(manifest):
            y = samples.y[:CHECK_BATCH]
            reason = _check_loss(_LOSSES[manifest.loss](outputs, y), oracle.loss_and_grad(theta, x, y, 0).loss)
    except EdgeError as error:
        return str(error)
    return reason


def check_outputs(predict: Predict, manifest: Manifest) -> str:
    """Why a release must not be served, as far as a few samples that nobody has measured show it; "" when its outputs are fine.

    They are zeros, ones and random values. A model may give NaN for some of them and be right, such as one that standardises
    each sample; none does so for all.
    """
    x = _canary(manifest)
    try:
        outputs = predict(x)
    except EdgeError as error:
        return str(error)
    finite = outputs.shape[:1] == x.shape[:1] and np.isfinite(outputs).reshape(len(x), -1).all(axis=1).any()
    return "" if finite and outputs.shape[1:] == manifest.output.shape else _check_outputs(outputs, len(x), manifest)


def check_samples(predict: Predict, manifest: Manifest, x: Array) -> str:
    """Why a release must not be served, as far as these inputs [N, *input] show it; "" when all its outputs are fine."""
    x = x[:CHECK_BATCH]
    return _check_outputs(predict(x), len(x), manifest)


def check_reference(predict: Predict, bundle: Bundle) -> str:
    """Why no release of a task must be served by this machine: it computes other outputs than the task's author; "" when not.

    Args:
        predict: the task's graph with the bundle's first values.
        bundle: of the task, with a reference.
    """
    if bundle.reference is None:
        return ""
    try:
        return difference(predict(reference_input(bundle.manifest.input.shape, bundle.manifest.input.dtype)), bundle.reference)
    except EdgeError as error:
        return str(error)


def one_sample(manifest: Manifest) -> Array:
    """A sample as the task takes it, [1, *input]; an ordinary one, as far as nobody has measured it."""
    return _canary(manifest)[-1:]


def _canary(manifest: Manifest) -> Array:
    shape, dtype, rng = manifest.input.shape, manifest.input.dtype, np.random.default_rng(0)
    plain = [np.zeros(shape, dtype), np.ones(shape, dtype)]
    if manifest.input.dtype != "float32":
        return np.stack(plain)  # other whole numbers may be out of the range of a table
    return np.stack([*plain, rng.random(shape, np.float32), rng.standard_normal(shape, np.float32)])


def _comparable(manifest: Manifest) -> bool:
    """Whether training computes the outputs that serving does: neither dropout nor statistics of the batch."""
    return manifest.loss in _LOSSES and not manifest.seeded and not manifest.buffers


def _check_outputs(outputs: Array, count: int, manifest: Manifest) -> str:
    expected = (count, *manifest.output.shape)
    if outputs.shape != expected:
        return f"outputs have shape {list(outputs.shape)} where the task has {list(expected)}"
    broken = int((~np.isfinite(outputs).reshape(count, -1).all(axis=1)).sum())
    return f"outputs of {broken} of {count} samples are not finite" if broken else ""


def _check_loss(served: float, trained: float) -> str:
    if abs(served - trained) <= RELATIVE * abs(trained) + ABSOLUTE:
        return ""
    return f"the served outputs have loss {served:.6g}, the training graph says {trained:.6g}"


def _cross_entropy(outputs: Array, y: Array) -> float:
    logits = np.moveaxis(outputs.astype(np.float64), 1, -1)  # [B, classes, ...] -> [B, ..., classes]
    logits = logits - logits.max(axis=-1, keepdims=True)
    log_probability = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return float(-np.take_along_axis(log_probability, y[..., None], axis=-1).mean())


def _mse(outputs: Array, y: Array) -> float:
    return float(np.square(outputs.astype(np.float64) - y).mean())


def _l1(outputs: Array, y: Array) -> float:
    return float(np.abs(outputs.astype(np.float64) - y).mean())


def _bce_with_logits(outputs: Array, y: Array) -> float:
    logits = outputs.astype(np.float64)
    return float((np.maximum(logits, 0) - logits * y + np.log1p(np.exp(-np.abs(logits)))).mean())


_LOSSES: dict[str, Callable[[Array, Array], float]] = {
    "cross_entropy": _cross_entropy,
    "mse": _mse,
    "l1": _l1,
    "bce_with_logits": _bce_with_logits,
}
