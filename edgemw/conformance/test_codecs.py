"""What every codec promises, for those that are installed.

    pytest --pyargs edgemw.conformance --codec NAME

The checks are those of `edgemw/compression/checks.py`, on typical and extreme vectors with fixed seeds, with the parameters that
the codec has when none are given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest

from edgemw.compression.checks import CHECKS, Case, sample_vectors
from edgemw.compression.table import codec_named, codec_names
from edgemw.core.errors import EdgeError, WireError

SIZES = (1, 7, 8, 65, 600)
LARGEST = float(np.finfo(np.float32).max)
STEPS = (0.0, 1.0, 0.3, 1e-45, 1e37, LARGEST)

pytestmark = pytest.mark.filterwarnings("error")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Once for each codec that was named, else for each that is installed."""
    try:
        asked = metafunc.config.getoption("edgemw_codecs")
        for name in asked or ():
            codec_named(name)
        names = asked or codec_names()
    except EdgeError as error:
        raise pytest.UsageError(str(error)) from error
    metafunc.parametrize("codec_name", names)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_contract(codec_name: str, check: Callable[[Case], None], size: int) -> None:
    """Each check, on each size and each step that may be announced."""
    codec = codec_named(codec_name)
    vectors = sample_vectors(np.random.default_rng(size), size)
    for step in STEPS if codec.stepped else STEPS[:1]:
        check(Case(codec, vectors, step))


def test_random_bytes_raise_only_wire_errors(codec_name: str) -> None:
    """Whatever a peer sends is a payload or a WireError."""
    codec, rng = codec_named(codec_name), np.random.default_rng(0)
    for size in (*SIZES, 10_000):
        for length in rng.integers(0, 200, 200):
            payload = rng.bytes(int(length))
            with contextlib.suppress(WireError):
                codec.check(payload, size)
            with contextlib.suppress(WireError):
                codec.decode(payload, size)
            with contextlib.suppress(WireError):
                codec.merge([payload], size)


def test_sums_beyond_the_range_still_merge(codec_name: str) -> None:
    """What `check` accepted must never stop a fog node: not even payloads that exceed the range together."""
    codec = codec_named(codec_name)
    payload = codec.encode(np.full(3, LARGEST, np.float32), 1e37)
    for _ in range(40):
        payload = codec.merge([payload, payload], 3)
        assert np.isfinite(codec.decode(payload, 3)).all()
        codec.check(payload, 3)
