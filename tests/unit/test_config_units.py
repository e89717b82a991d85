"""Durations and sizes: what is read, and that writing is the inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from edgemw.core.config.units import duration, duration_text, size, size_text


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("0s", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1e3s", "1 0s", "5S", "5s ", "1h30m", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("120kB", 120_000), ("256KiB", 262_144), ("1.5MB", 1_500_000), ("7B", 7), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "5", "kB", "-1B", "1kb", "1.5B", "1 KiB ", "1e3B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size(text)


@runs(deadline=None)  # the machine may be busy
@given(st.floats(0, 1e12, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-9))
def test_durations_survive_being_written(seconds: float) -> None:
    assert duration(duration_text(seconds)) == seconds


@runs(deadline=None)  # the machine may be busy
@given(st.integers(0, 1 << 50))
def test_sizes_survive_being_written(count: int) -> None:
    assert size(size_text(count)) == count
