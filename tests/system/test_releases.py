"""Releases as real processes take them: the same bits everywhere, few bytes for whoever follows, all of it for who comes late."""

from __future__ import annotations

import re
import signal

import numpy as np

from edgemw.core.bundle import read_bundle
from edgemw.serving.store import ReleaseStore
from edgemw.storage import journal
from edgemw.storage.database import Database
from tests.system.fleet import BUNDLE, Fleet, fact

ROUNDS = 12
THETA_BYTES = 4 * read_bundle(BUNDLE.read_bytes()).manifest.size


def received(fleet: Fleet, device: str, channel: str) -> float:
    """Payload bytes that a device has received on a channel."""
    pattern = rf'edgemw_channel_received_bytes_total{{[^}}]*channel="{channel}"[^}}]*}} (\S+)'
    found = re.search(pattern, fleet.get(device, "telemetry", "/metrics"))
    return float(found[1]) if found else 0.0


def test_who_follows_who_comes_late_and_who_was_killed_end_with_the_same_bits(fleet: Fleet) -> None:
    fleet.fog("top", task={"bundle": str(BUNDLE), "rounds": ROUNDS}, plan={"steps": 2})
    for fog in ("fog-0", "fog-1"):
        fleet.fog(fog, "top", window={"deadline": "5s", "children": 1})
    devices = {"device-0": "fog-0", "device-1": "fog-1", "device-2": "fog-1"}
    for device, fog in devices.items():
        fleet.device(device, fog)
    fleet.start("top", "fog-0", "fog-1", "device-0", "device-1")
    fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 3)
    fleet.kill("fog-1")
    fleet.start("fog-1", "device-2")

    fleet.until(
        lambda s: (
            {*devices, "top"} <= set(s)
            and s["top"].status.state == "finished"
            and all(fact(s[device], "release") == ROUNDS for device in devices)
        ),
        timeout_s=120,
    )
    whole = {device: received(fleet, device, "blob") for device in devices}
    for node in (*devices, "fog-0", "fog-1", "top"):
        fleet.signal(node, signal.SIGTERM)
        assert fleet.wait(node) == 0
    database = Database(fleet.folder / "top")
    row = journal.release(database, "digits")
    database.close()
    assert row is not None
    for device in devices:
        kept = ReleaseStore(fleet.folder / device / "releases", 3).latest("digits")
        assert kept is not None
        assert kept.number == ROUNDS
        assert kept.theta.tobytes() == row.theta, device
        assert not np.array_equal(kept.theta, kept.bundle.theta0)
    bundle_bytes = BUNDLE.stat().st_size
    assert whole["device-0"] < bundle_bytes + 0.1 * THETA_BYTES  # the bundle, and nothing that is as large as theta
