"""Sums under masks in nets of processes over a broker: they train, `kill -9` loses and doubles nothing, who insists is heard."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from edgemw.app.census import NodeStatus
from tests.support.signing import Office
from tests.system.fleet import BUNDLE, Fleet, edgemw, fact

DEVICES = [f"device-{n}" for n in range(4)]
NODES = ["top", "fog-0", *DEVICES]
LANES = {"use": "lanes", "parameters.bits": 8, "parameters.blocks": 4, "parameters.members": 8}
INSISTS = {"require_masks": True}


def write(fleet: Fleet, rounds: int, security: Mapping[str, Mapping[str, Any]] | None = None, **privacy: Any) -> None:
    """top, one fog node, four devices that insist on masks; the files only."""
    own = security or {node: {} for node in NODES}
    task = {"bundle": str(BUNDLE), "rounds": rounds}
    fleet.fog("top", task=task, plan={"steps": 2}, codec=LANES, privacy=privacy, security=own["top"])
    fleet.fog("fog-0", "top", window={"deadline": "4s", "children": len(DEVICES), "quorum": 3}, security=own["fog-0"])
    for device in DEVICES:
        fleet.device(device, "fog-0", privacy=INSISTS, security=own[device])


def reached(statuses: Mapping[str, NodeStatus], release: int) -> bool:
    """Whether the top has made a release."""
    return "top" in statuses and fact(statuses["top"], "release") >= release


def settled(statuses: Mapping[str, NodeStatus]) -> bool:
    """Whether the run is over, and nothing is on its way."""
    done = set(statuses) == set(NODES) and statuses["top"].status.state == "finished"
    return done and all(fact(statuses[node], "updates_pending") == 0 for node in ("fog-0", *DEVICES))


def test_a_signed_net_adds_under_masks_and_its_books_and_evidence_are_clean(fleet: Fleet) -> None:
    office, folder = Office(at=datetime.now(UTC)), fleet.folder / "pki"
    office.write(folder, NODES)
    checking = {"ca": str(folder / "ca.pem"), "crl": str(folder / "crl.pem"), "evidence": "1MiB"}
    believing = {"release_key": [str(folder / "nodes/top/sign.pem")]}
    more: Mapping[str, Mapping[str, Any]] = {"top": checking, "fog-0": {**checking, **believing}}
    security = {
        node: {
            "key.file": str(folder / "nodes" / node / "sign.key"),
            "certificate": str(folder / "nodes" / node / "sign.pem"),
            **more.get(node, believing),
        }
        for node in NODES
    }
    write(fleet, 3, security, masks=True)
    for node in NODES:
        checked = edgemw("check", fleet.folder / f"{node}.toml")
        assert checked.returncode == 0, checked.stderr
    fleet.start(*NODES)
    statuses = fleet.until(settled)
    assert (fact(statuses["fog-0"], "group"), fact(statuses["fog-0"], "groups_unmasked")) == (4, 3)
    assert fact(statuses["top"], "updates_counted") == 3 * len(DEVICES)
    assert all(status.status.reason == "" for status in statuses.values())
    metrics = fleet.get("fog-0", "telemetry", "/metrics")
    assert re.search(r'^edgemw_fog_groups_total\{.*outcome="unmasked".*\} 3\.0$', metrics, re.MULTILINE)
    for node in NODES:
        fleet.kill(node)
    done = edgemw("audit", fleet.folder, "--ca", folder / "ca.pem", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "under masks" in done.stdout + done.stderr


def test_kill_9_of_devices_and_the_fog_node_between_messages_loses_and_doubles_nothing(fleet: Fleet) -> None:
    write(fleet, 8, masks=True, threshold=51)
    fleet.start(*NODES)
    for release, victim in enumerate(("device-1", "fog-0", "device-2", "device-1"), 1):
        fleet.until(partial(reached, release=release))
        fleet.kill(victim)
        fleet.start(victim)
    statuses = fleet.until(settled, timeout_s=200)
    kept = sum(fact(statuses[d], "updates_sent") - fact(statuses[d], "updates_returned") for d in DEVICES)
    assert fact(statuses["top"], "updates_counted") == kept > 0
    assert fact(statuses["fog-0"], "groups_unmasked") >= 1
    for node in NODES:
        fleet.kill(node)
    done = edgemw("audit", fleet.folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["tasks"]
    assert found["faults"] == []


def test_devices_that_insist_send_nothing_to_a_net_without_masks(fleet: Fleet) -> None:
    write(fleet, 2)
    fleet.start(*NODES)
    statuses = fleet.until(settled)
    assert {fact(statuses[device], "updates_sent") for device in DEVICES} == {0}
    assert "privacy.require_masks: the release asks for updates that its fog node can read" in statuses["device-0"].status.reason


def test_what_does_not_go_with_masks_is_refused_with_its_key_where_a_file_is_checked(fleet: Fleet) -> None:
    path = fleet.fog("top", privacy={"masks": True})
    done = edgemw("check", path)
    assert done.returncode == 3
    assert "privacy.masks: codec lattice has no integers of a fixed width" in done.stderr
    path = fleet.fog("top", privacy={"masks": True, "mode": "central"}, codec=LANES)
    done = edgemw("check", path)
    assert done.returncode == 3
    assert "privacy.masks: noise of privacy.mode = central" in done.stderr
