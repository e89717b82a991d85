"""What the integration tests share: a mosquitto of one's own per file."""

from __future__ import annotations

import os
import socket
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


@pytest.fixture(scope="module")
def unused_ports() -> tuple[int, int]:
    """Two loopback ports that were free a moment ago."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
