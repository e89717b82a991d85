"""What the integration tests share: a mosquitto of one's own per file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edgemw.transport.broker import Broker, find_mosquitto, start_broker


@pytest.fixture(scope="session")
def has_mosquitto() -> None:
    """Skip without mosquitto, but fail where CI is set."""
    if find_mosquitto() is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not installed, and CI must have it")
        pytest.skip("mosquitto is not installed")


@pytest.fixture(scope="module")
def mosquitto(has_mosquitto: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the tests of one file."""
    with start_broker("mosquitto", tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker
