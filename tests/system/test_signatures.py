"""A net of processes that sign: it trains, its audit is clean, and whoever forges with access to the broker gets nowhere."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgemw.app.broker import mqtt_settings
from edgemw.app.census import NodeStatus
from edgemw.app.settings import Broker
from edgemw.core.encoded import Section
from edgemw.transport.broker import start_broker
from edgemw.transport.link import Up
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import publication, topics
from edgemw.wire.chunks import CHUNK_BYTES, blob_of
from edgemw.wire.messages import Frame, Message, ReleaseManifest, TaskManifest, Update
from tests.support.relay import Relay, relaying
from tests.support.signing import Office
from tests.system.fleet import BUNDLE, Fleet, edgemw, fact

NODES = ["top", "fog-0", "device-0", "device-1"]


def signing(fleet: Fleet, rounds: int) -> Office:
    """top, one fog, two devices, all of which sign; the files only."""
    office = Office(at=datetime.now(UTC))
    folder = fleet.folder / "pki"
    office.write(folder, [*NODES, "rogue"])

    def security(node: str, **more: Any) -> Mapping[str, Any]:
        own = folder / "nodes" / node
        return {"key.file": str(own / "sign.key"), "certificate": str(own / "sign.pem"), **more}

    checking = {"ca": str(folder / "ca.pem"), "crl": str(folder / "crl.pem"), "evidence": "1MiB"}
    believing = {"release_key": [str(folder / "nodes/top/sign.pem")]}
    task = {"bundle": str(BUNDLE), "rounds": rounds}
    fleet.fog("top", task=task, plan={"steps": 2}, security=security("top", **checking))
    window = {"deadline": "5s", "children": 2}
    fleet.fog("fog-0", "top", window=window, security=security("fog-0", **checking, **believing))
    for device in ("device-0", "device-1"):
        fleet.device(device, "fog-0", security=security(device, **believing))
    return office


def publish(url: str, messages: list[tuple[str, Frame, bool]]) -> None:
    """Publish frames as somebody whom the broker lets in."""

    async def work() -> None:
        link = MqttLink(mqtt_settings(Broker(url=url), "rogue", {}, wait=False))
        async with link:
            async for event in link.events():
                if isinstance(event, Up):
                    break
            for topic, frame, retain in messages:
                await link.publish(topic, publication.write(topic, frame), retain=retain)

    asyncio.run(work())


def refusals(fleet: Fleet, node: str, what: str) -> float:
    """How many a node has refused for their signature, as its metrics say."""
    found = [
        line.rpartition(" ")[2]
        for line in fleet.get(node, "telemetry", "/metrics").splitlines()
        if line.startswith("edgemw_refused_total") and 'reason="signature"' in line and f'what="{what}"' in line
    ]
    return float(found[0]) if found else 0.0


def measured(statuses: Mapping[str, NodeStatus]) -> bool:
    """Whether the last release is at every device, and nothing is on its way."""
    return all(fact(statuses[n], "release") == 3 and fact(statuses[n], "updates_pending") == 0 for n in NODES[1:])


def everybody(statuses: Mapping[str, NodeStatus]) -> bool:
    return set(statuses) == set(NODES)


def test_a_signed_net_trains_to_the_end_and_refuses_what_a_rogue_client_forges(fleet: Fleet) -> None:
    signing(fleet, rounds=3)
    for node in NODES:
        checked = edgemw("check", fleet.folder / f"{node}.toml")
        assert checked.returncode == 0, checked.stderr
    fleet.start(*NODES)
    statuses = fleet.until(lambda s: everybody(s) and s["top"].status.state == "finished" and measured(s))
    assert all(status.status.reason == "" for status in statuses.values())

    blob = blob_of(b"a bundle of somebody else", CHUNK_BYTES)
    forged = ReleaseManifest(1 << 40, 1000, bytes(16), blob, True, "lattice", {}, 1.0, None, 4)
    update = Update(1 << 40, "lattice", 10, (Section(1, 1 << 20, 1, 0.0, b"", b""),))

    def said(domain: str, channel: str, message: Message, by: str = "fog-0", **values: str) -> tuple[str, Frame, bool]:
        where = topics.build(fleet.net, domain, channel, task="digits", **values)
        return where, Frame("digits", by, 1 << 40, 1 << 40, message), channel != "update"

    publish(
        fleet.url,
        [
            said("fog-0", "release", forged),
            said("fog-0", "task", TaskManifest(blob)),
            said("fog-0", "update", update, by="device-0", node="device-0"),
            said("top", "task", TaskManifest(blob), by="rogue"),
        ],
    )

    def refused(s: Mapping[str, NodeStatus]) -> bool:
        return everybody(s) and all("release 1000 is refused" in s[f"device-{n}"].status.reason for n in (0, 1))

    statuses = fleet.until(refused)
    for device in ("device-0", "device-1"):
        reason = statuses[device].status.reason
        assert "release 1000 is refused: it is not signed, and security.release_key asks for it" in reason
        assert f"bundle {blob.name} is refused: it is not signed" in reason
        assert fact(statuses[device], "release") == 3  # and goes on with what it has
    assert "updates of device-0 are not taken: it is not signed" in statuses["fog-0"].status.reason
    assert "its proposal is not signed by a key of security.release_key" in statuses["top"].status.reason
    assert refusals(fleet, "fog-0", "update") == 1
    assert refusals(fleet, "device-0", "release") == 1
    assert json.loads(fleet.get("device-0", "serving", "/v2/models/digits"))["versions"] == ["3"]

    for node in reversed(NODES):
        fleet.kill(node)
    ca = fleet.folder / "pki" / "ca.pem"
    audited = edgemw("audit", fleet.folder, "--ca", ca, "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    (evidence,) = json.loads(audited.stdout)["evidence"]
    assert evidence["faults"] == []
    assert evidence["windows"] >= 3
    assert evidence["signatures"] >= 9

    with closing(sqlite3.connect(fleet.folder / "fog-0" / "state.db")) as db, db:  # a fog that hides what a device has sent
        db.execute("DELETE FROM evidence_member WHERE place = 1 AND number = (SELECT MAX(number) FROM evidence_member)")
    audited = edgemw("audit", fleet.folder, "--ca", ca)
    assert audited.returncode == 1
    assert "! window fog-0/" in audited.stdout


def test_without_a_key_of_its_own_nobody_can_propose_a_bundle(fleet: Fleet) -> None:
    signing(fleet, rounds=1)
    text = (fleet.folder / "top.toml").read_text()
    (fleet.folder / "top.toml").write_text(text.replace(f'bundle = "{BUNDLE}"\n', ""))
    fleet.start("top")
    fleet.until(lambda s: "top" in s)
    where = ("--broker", fleet.url, "--net", fleet.net, "--to", "top")
    refused = edgemw("task", "publish", BUNDLE, *where, "--timeout", "1", "--sign", fleet.folder / "pki/nodes/rogue/sign.key")
    assert refused.returncode == 1
    assert "top has not taken it within 1 s, and says: bundle" in refused.stdout
    assert "its proposal is not signed by a key of security.release_key" in refused.stdout
    statuses = fleet.until(lambda s: "top" in s and s["top"].task == "digits")
    assert "its proposal is not signed by a key" in statuses["top"].status.reason
    taken = edgemw("task", "publish", BUNDLE, *where, "--sign", fleet.folder / "pki/nodes/top/sign.key")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert "top has taken it and is at release 0" in taken.stdout


def test_a_file_that_does_not_fit_its_keys_is_refused(fleet: Fleet) -> None:
    signing(fleet, rounds=1)
    pki = fleet.folder / "pki"
    (pki / "nodes/device-0/sign.pem").write_bytes((pki / "nodes/device-1/sign.pem").read_bytes())
    checked = edgemw("check", fleet.folder / "device-0.toml")
    assert checked.returncode == 3
    assert "security.certificate" in checked.stderr
    started = edgemw("device", "--config", fleet.folder / "device-0.toml")
    assert started.returncode == 3
    assert "is not of the key in security.key" in started.stderr


def test_a_bridge_that_alters_what_it_carries_is_noticed_and_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    signing(fleet, rounds=6)
    pki = fleet.folder / "pki"
    own = {node: pki / "nodes" / node for node in NODES}
    with start_broker("mosquitto", tmp_path / "below") as below:
        for device in ("device-0", "device-1"):
            keys = {"key.file": str(own[device] / "sign.key"), "certificate": str(own[device] / "sign.pem")}
            release_key = [str(own["top"] / "sign.pem")]
            broker = {"url": below.url, "keepalive": "5s"}
            fleet.device(device, "top", broker=broker, security={**keys, "release_key": release_key})
        seen: set[tuple[str, int]] = set()

        def alter(frame: Frame) -> Frame:
            """Each device's second and fourth update gets a hundred times its weight, once; every second release another step."""
            match frame.message:
                case Update(sections=sections) as update if (
                    sections and frame.seq in (1, 3) and not seen & {(frame.node, frame.seq)}
                ):
                    seen.add((frame.node, frame.seq))
                    heavier = tuple(replace(section, weight=100 * section.weight) for section in sections)
                    return replace(frame, message=replace(update, sections=heavier))
                case ReleaseManifest(number=2) as manifest if ("release", 2) not in seen:
                    seen.add(("release", 2))
                    return replace(frame, message=replace(manifest, step=2 * manifest.step + 1))
            return frame

        relay = Relay(fleet.net, below.url, fleet.url, alter)
        nodes = ["top", "device-0", "device-1"]
        with relaying(relay):
            fleet.start(*nodes)
            fleet.until(lambda s: set(s) == set(nodes) and s["top"].status.state == "finished" and settled(s), timeout_s=45)
            assert refusals(fleet, "top", "update") == len(seen) - 1 >= 3
            assert refusals(fleet, "device-0", "release") == 1
            for node in nodes:
                fleet.kill(node)
    assert relay.altered == len(seen)
    audited = edgemw("audit", *(fleet.folder / node for node in nodes), "--ca", pki / "ca.pem")
    assert audited.returncode == 0, audited.stdout + audited.stderr


def settled(statuses: Mapping[str, NodeStatus]) -> bool:
    """Whether no update of a device is on its way."""
    return all(fact(statuses[device], "updates_pending") == 0 for device in ("device-0", "device-1"))
