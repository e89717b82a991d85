"""Error feedback with every codec that needs no step: nothing is lost, and what is kept does not grow without end."""

from __future__ import annotations

import numpy as np
import pytest

from edgemw.compression.residual import Contribution, encode_update, give_back
from edgemw.compression.table import CODECS, codec_named
from edgemw.core.ids import UpdateId

SIZE, ROUNDS = 400, 150


@pytest.mark.parametrize("name", [name for name in CODECS if not codec_named(name).stepped])
def test_over_many_rounds_everything_sent_and_the_residual_are_everything_trained(name: str) -> None:
    codec, rng = codec_named(name), np.random.default_rng(0)
    residual = np.zeros(SIZE, np.float32)
    trained, sent, kept, scale = np.zeros(SIZE), np.zeros(SIZE), [], 0.0
    for seq in range(ROUNDS):
        delta = rng.laplace(0, 1, SIZE).astype(np.float32)
        encoded, residual = encode_update(codec, Contribution(UpdateId("device", 1, seq), 3, 1, delta), residual, 0.0)
        trained += delta
        sent += codec.decode(encoded.sections[0].payload, SIZE)
        kept.append(float(np.linalg.norm(residual)))
        scale = max(scale, float(np.abs(residual).max()), float(np.abs(sent).max()))
    assert np.abs(sent + residual - trained).max() <= ROUNDS * 1e-6 * scale
    assert max(kept[-50:]) < 1.5 * max(kept[50:100]) + 1e-3


@pytest.mark.parametrize("name", [name for name in CODECS if not codec_named(name).stepped])
def test_what_no_release_counted_is_given_back(name: str) -> None:
    codec, delta = codec_named(name), np.random.default_rng(1).laplace(0, 1, SIZE).astype(np.float32)
    encoded, residual = encode_update(codec, Contribution(UpdateId("device", 1, 0), 3, 1, delta), np.zeros_like(delta), 0.0)
    assert np.allclose(give_back(codec, encoded, residual), delta, rtol=0, atol=1e-6 * float(np.abs(delta).max()))


def test_powersgd_looks_in_other_directions_every_time() -> None:
    """A delta of full rank that stays the same is sent in the end, two directions at a time."""
    codec, delta = codec_named("powersgd", rank=2), np.random.default_rng(2).standard_normal(SIZE).astype(np.float32)
    residual, sent = np.zeros(SIZE, np.float32), np.zeros(SIZE)
    for seq in range(ROUNDS):
        encoded, residual = encode_update(codec, Contribution(UpdateId("device", 1, seq), 3, 1, delta), residual, 0.0)
        sent += codec.decode(encoded.sections[0].payload, SIZE)
    assert np.linalg.norm(sent / ROUNDS - delta) < 0.1 * np.linalg.norm(delta)
