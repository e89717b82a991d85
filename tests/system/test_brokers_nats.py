"""Three NATS servers on the files of brokers/nats carry the quickstart, and one of them is killed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nats import NAMES, Cluster, find_nats
from tests.support.programs import needed
from tests.system.quickstart import MONITOR, NODES, carry, check_books, identity, quickstart


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    needed("nats-server", find_nats())
    (tmp_path / "nats").mkdir()
    with Cluster(tmp_path / "nats", (*NODES, MONITOR)) as started:
        yield started


@pytest.mark.timeout(600)
def test_the_quickstart_outlives_a_killed_server_and_its_audit_is_clean(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    victim, *others = NAMES
    monitor = identity(",".join(cluster.urls[name] for name in others), cluster.tls, MONITOR)
    with quickstart(folder, cluster.url, cluster.tls) as fleet:
        carry(fleet, monitor, half=lambda: cluster.kill(victim))
    logs = [(folder / f"{node}.log").read_text() for node in NODES]
    moved = [log for log in logs if f"link up: {cluster.urls[victim]}" in log]
    assert moved
    assert all("link down" in log for log in moved)
    check_books(folder)
