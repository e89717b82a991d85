"""docker/compose.yaml learns: its services run with its commands, files, secrets and names, without Docker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import FOLDER, services
from tests.support.containers import Pod, needs_namespaces
from tests.system.fleet import when

DEVICES = [f"device-{number}" for number in range(8)]
NODES = ["top", "fog-0", "fog-1", *DEVICES]
SECRET_FILES = ("CA", "SECRETS", "BROKER", "REVOKE")


def certificates(folder: Path, *names: str, **said: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SECRETS": str(folder), **said}
    return subprocess.run([FOLDER / "certificates.sh", *names], env=env, capture_output=True, text=True, timeout=60, check=False)


def status(pod: Pod) -> dict[str, Any]:
    """What `docker compose exec top edgemw status` says, by node."""
    words = [*pod.services["top"].image.entrypoint, "status", "--config", "/etc/edgemw/fog.toml", "--json"]
    done = pod.execute("top", words)
    return {node["node"]: node for node in json.loads(done.stdout or '{"nodes": []}')["nodes"]}


@pytest.fixture
def pod(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """The broker, the nodes and their samples, running."""
    needs_namespaces()
    given = request.config.getoption("--images")
    assert certificates(tmp_path / "secrets").returncode == 0
    known = services(tmp_path / "secrets")
    with Pod(tmp_path / "pod", known, Path(given) if given else None) as pod:
        pod.start(known["samples"])
        assert pod.processes["samples"].wait(60) == 0
        for name in ("broker", *NODES):
            pod.start(known[name])
        yield pod


def test_it_learns_and_counts_every_device(pod: Pod) -> None:
    found = when(lambda: status(pod), lambda nodes: nodes.get("top", {}).get("facts", {}).get("release", -1) >= 3)
    assert set(found) == set(NODES)
    print(json.dumps(found, indent=1))
