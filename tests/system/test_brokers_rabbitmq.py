"""RabbitMQ on the files of brokers/rabbitmq carries the quickstart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import needed
from tests.support.rabbitmq import RabbitMq, find_rabbitmq
from tests.system.quickstart import MONITOR, NODES, carry, check_books, identity, quickstart


@pytest.fixture
def rabbitmq(tmp_path: Path) -> Iterator[RabbitMq]:
    needed("rabbitmq-server", find_rabbitmq())
    (tmp_path / "rabbitmq").mkdir()
    with RabbitMq(tmp_path / "rabbitmq", (*NODES, MONITOR)) as started:
        yield started


@pytest.mark.timeout(600)
def test_the_quickstart_runs_to_its_end_and_its_audit_is_clean(rabbitmq: RabbitMq, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with quickstart(folder, rabbitmq.url, rabbitmq.tls) as fleet:
        carry(fleet, identity(rabbitmq.url, rabbitmq.tls, MONITOR))
    check_books(folder)
