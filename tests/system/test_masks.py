"""Sums under masks between processes and a real broker: what is said is heard here too, and nodes are killed for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from edgemw.app.census import NodeStatus
from edgemw.core.errors import WireError
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame, Shares, Unmask, Update
from tests.support.signing import Office
from tests.system.fleet import BUNDLE, Fleet, edgemw, fact, when

DEVICES = [f"device-{n}" for n in range(4)]
NODES = ["top", "fog-0", *DEVICES]
LANES: dict[str, Mapping[str, Any]] = {"codec": {"use": "lanes"}, "codec.parameters": {"blocks": 4, "members": 8}}


class Spy:
    """Hears everything; kills a node when somebody says something, or is told it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._victim: tuple[str, type, str] = "", object, ""
        self.heard: list[tuple[str, Frame]] = []
        self.killed = threading.Event()

    def kill(self, victim: str, kind: type, about: str) -> None:
        """Wait until a message of a kind passes on a topic with this in it, and kill -9 the victim at that moment."""
        self.killed.clear()
        self._victim = victim, kind, about
        assert self.killed.wait(60), f"nobody said {kind.__name__} on {about}"
        self._fleet.processes.pop(victim).wait()
        for note in (self._fleet.folder / victim).glob("*.address"):
            note.unlink()

    def __call__(self, client: Client, data: object, message: MQTTMessage) -> None:
        try:
            frame = publication.read(topics.parse(message.topic), bytes(message.payload))
        except WireError:
            return  # chunks of blobs that were cleared
        self.heard.append((message.topic, frame))
        victim, kind, about = self._victim
        if victim and isinstance(frame.message, kind) and about in message.topic:
            self._victim = "", object, ""
            self._fleet.processes[victim].kill()
            self.killed.set()

    def updates(self) -> Iterator[Update]:
        """What devices have said of their training."""
        for _, frame in self.heard:
            if isinstance(frame.message, Update) and frame.message.sections and frame.node in DEVICES:
                yield frame.message


@contextmanager
def listening(fleet: Fleet) -> Iterator[Spy]:
    spy, client = Spy(fleet), Client(CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()
    client.on_message = spy
    client.on_subscribe = lambda *given: subscribed.set()
    host, _, port = fleet.url.removeprefix("mqtt://").partition(":")
    client.connect(host, int(port))
    client.loop_start()
    client.subscribe(f"em1/{fleet.net}/#", 1)
    assert subscribed.wait(10)
    try:
        yield spy
    finally:
        client.disconnect()
        client.loop_stop()


def files(fleet: Fleet, rounds: int, *, masks: bool = True, security: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """top, one fog node, four devices that insist on masks."""
    own = security or {node: {} for node in NODES}
    task = {"bundle": str(BUNDLE), "rounds": rounds}
    top: dict[str, Mapping[str, Any]] = {
        "plan": {"steps": 2},
        "privacy": {"masks": masks},
        "window": {"deadline": "20s"},
        **LANES,
    }
    fleet.fog("top", task=task, security=own["top"], **top)
    fleet.fog("fog-0", "top", window={"deadline": "4s", "children": len(DEVICES)}, security=own["fog-0"])
    for device in DEVICES:
        fleet.device(device, "fog-0", privacy={"require_masks": True}, security=own[device])


def settled(statuses: Mapping[str, NodeStatus]) -> bool:
    """Whether the run is over, and nothing is on its way."""
    done = set(statuses) == set(NODES) and statuses["top"].status.state == "finished"
    return done and all(fact(statuses[node], "updates_pending") == 0 for node in ("fog-0", *DEVICES))


def audited(fleet: Fleet, nodes: Sequence[str] = NODES) -> dict[str, object]:
    for node in nodes:
        fleet.kill(node)
    done = edgemw("audit", "--json", *[fleet.folder / node for node in nodes])
    assert done.returncode == 0, done.stdout + done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["faults"] == []
    return dict(task)


def test_a_run_under_masks_ends_and_says_so(fleet: Fleet) -> None:
    files(fleet, rounds=4)
    with listening(fleet) as spy:
        fleet.start(*NODES)
        states = fleet.until(settled)
        metrics = fleet.get("fog-0", "telemetry", "/metrics")
        printed = edgemw("status", "--broker", fleet.url, "--net", fleet.net).stdout
    assert all(update.group and update.sections[0].energy == 0.0 for update in spy.updates())
    assert len({update.group for update in spy.updates()}) == 4
    assert fact(states["top"], "updates_counted") == 16
    assert (fact(states["fog-0"], "groups_unmasked"), fact(states["fog-0"], "groups_given_up")) == (4, 0)
    assert fact(states["device-0"], "group") == 4
    assert [status.status.reason for status in states.values()] == [""] * len(NODES)
    assert 'outcome="unmasked"' in next(line for line in metrics.splitlines() if line.startswith("edgemw_fog_groups_total"))
    assert "masks off 4 sums, the last of 4 devices" in next(line for line in printed.splitlines() if line.startswith("fog-0"))
    assert "under masks in a group of 4" in next(line for line in printed.splitlines() if line.startswith("device-0"))
    audited(fleet)


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
    files(fleet, 3, security=security)
    for node in NODES:
        checked = edgemw("check", fleet.folder / f"{node}.toml")
        assert checked.returncode == 0, checked.stderr
    fleet.start(*NODES)
    statuses = fleet.until(settled)
    assert (fact(statuses["fog-0"], "group"), fact(statuses["fog-0"], "groups_unmasked")) == (4, 3)
    assert fact(statuses["top"], "updates_counted") == 3 * len(DEVICES)
    assert all(status.status.reason == "" for status in statuses.values())
    for node in NODES:
        fleet.kill(node)
    done = edgemw("audit", fleet.folder, "--ca", folder / "ca.pem", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "under masks" in done.stdout + done.stderr


def test_nodes_that_are_killed_in_the_middle_lose_and_double_nothing(fleet: Fleet) -> None:
    files(fleet, rounds=80)
    with listening(fleet) as spy:
        fleet.start(*NODES)
        for victim, kind, about in (
            ("device-3", Shares, "up/device-3/"),  # it has dealt out shares, and its update may not have left
            ("device-2", Unmask, "dn/device-2/"),  # its update is in a sum whose masks are coming off
            ("fog-0", Unmask, "dn/device-0/"),  # it has masked updates on its disk, and nothing that takes masks off
        ):
            spy.kill(victim, kind, about)
            fleet.start(victim)
        states = fleet.until(settled, timeout_s=150)
    assert fact(states["top"], "release") == 80
    assert all(update.group for update in spy.updates())
    assert max(fact(states[device], "mass_imbalance") for device in DEVICES) < 1e-5
    task = audited(fleet)
    assert task["difference"] == {"updates": 0, "weight": 0}


def test_a_device_that_is_gone_is_taken_out_of_the_sum(fleet: Fleet) -> None:
    """It has dealt out shares and is held before its update: the others put its key together."""
    files(fleet, rounds=0)
    fleet.device("device-3", "fog-0", privacy={"require_masks": True}, data=fleet.samples("many", 60_000))
    fleet.fog(
        "top",
        task={"bundle": str(BUNDLE), "rounds": 0},
        plan={"epochs": 4},
        privacy={"masks": True},
        window={"deadline": "60s"},
        **LANES,
    )
    with listening(fleet) as spy:
        fleet.start(*NODES)
        spy.kill("device-3", Shares, "dn/device-3/")  # it is dealt its shares while it trains
        states = fleet.until(lambda s: "fog-0" in s and fact(s["fog-0"], "groups_unmasked") >= 1)
        assert "device-3" not in {frame.node for _, frame in spy.heard if is_update(frame)}
        dropped = when(lambda: fleet.get("fog-0", "telemetry", "/metrics"), lambda text: "group_dropouts_total" in text)
    assert fact(states["fog-0"], "groups_given_up") == 0
    line = next(line for line in dropped.splitlines() if line.startswith("edgemw_fog_group_dropouts_total"))
    assert float(line.split()[-1]) == 1.0


def test_devices_that_insist_send_nothing_to_a_net_without_masks(fleet: Fleet) -> None:
    files(fleet, 2, masks=False)
    fleet.start(*NODES)
    statuses = fleet.until(settled)
    assert {fact(statuses[device], "updates_sent") for device in DEVICES} == {0}
    assert "privacy.require_masks: the release asks for updates that its fog node can read" in statuses["device-0"].status.reason


def is_update(frame: Frame) -> bool:
    return isinstance(frame.message, Update) and bool(frame.message.sections)


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"codec": {"use": "lattice"}}, "privacy.masks: codec lattice has no integers of a fixed width"),
        ({**LANES, "privacy": {"masks": True, "mode": "central"}}, "privacy.masks: noise of privacy.mode = central"),
        ({**LANES, "privacy": {"masks": True, "threshold": 50}}, "privacy.threshold: must be at least 51"),
    ],
)
def test_a_file_whose_masks_cannot_be_is_refused_where_it_is_checked(
    fleet: Fleet, tables: dict[str, Mapping[str, Any]], reason: str
) -> None:
    path = fleet.fog("top", **({"privacy": {"masks": True}} | tables))
    done = edgemw("check", str(path))
    assert (done.returncode, reason in done.stderr) == (3, True), done.stderr
