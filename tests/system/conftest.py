"""A broker for one test, and a net of processes on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemw.transport.broker import Broker, start_broker
from tests.system.fleet import Fleet


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with start_broker("mosquitto", tmp_path / "broker") as started:
        yield started


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[Fleet]:
    with Fleet(tmp_path, broker.url) as made:
        yield made
