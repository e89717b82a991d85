"""Nodes as real processes against a real broker: any order, killed and restarted, asked and looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from edgemw import Predictor
from edgemw.app.census import NodeStatus
from edgemw.app.wiring import open_oracle
from edgemw.core.bundle import read_bundle
from edgemw.core.plan import Plan
from edgemw.learning.dataset import Samples
from edgemw.learning.trainer import train
from edgemw.serving.store import ReleaseStore
from edgemw.transport.broker import Broker
from tests.system.fleet import BUNDLE, ROOT, Fleet, edgemw, environment, fact


def small_tree(fleet: Fleet) -> list[str]:
    """top, one fog, two devices; the files only."""
    fleet.fog("top")
    fleet.fog("fog-0", "top", window={"deadline": "5s", "children": 2})
    fleet.device("device-0", "fog-0")
    fleet.device("device-1", "fog-0")
    return ["top", "fog-0", "device-0", "device-1"]


def test_nodes_start_in_any_order_and_before_the_broker(fleet: Fleet, broker: Broker) -> None:
    nodes = small_tree(fleet)
    broker.stop()
    fleet.start(*reversed(nodes))
    fleet.address("device-0", "serving")
    broker.start()
    statuses = fleet.until(lambda s: set(s) == set(nodes) and all(fact(s[n], "release") >= 2 for n in nodes))
    assert all(status.status.reason == "" for status in statuses.values())


def test_kill_and_restart_in_pieces_loses_and_doubles_nothing(fleet: Fleet) -> None:
    nodes = small_tree(fleet)
    fleet.fog("top", task={"bundle": str(BUNDLE), "rounds": 12}, plan={"steps": 2})
    fleet.start(*nodes)
    for victim in ("device-0", "fog-0", "top"):
        fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 1)
        fleet.kill(victim)
        fleet.start(victim)
    statuses = fleet.until(
        lambda s: (
            set(s) == set(nodes)
            and s["top"].status.state == "finished"
            and all(fact(s[d], "updates_pending") == 0 for d in ("device-0", "device-1"))
        ),
        timeout_s=150,
    )
    devices = [statuses["device-0"], statuses["device-1"]]
    kept = sum(fact(d, "updates_sent") - fact(d, "updates_returned") for d in devices)
    weight = sum(fact(d, "weight_sent") - fact(d, "weight_returned") for d in devices)
    assert fact(statuses["top"], "release") == 12
    assert (fact(statuses["top"], "updates_counted"), fact(statuses["top"], "weight_counted")) == (kept, weight)


def reached(statuses: dict[str, NodeStatus], release: int) -> bool:
    """Whether the top has made a release."""
    return "top" in statuses and fact(statuses["top"], "release") >= release


def test_an_audit_of_what_killed_nodes_left_on_their_disks_finds_nothing(fleet: Fleet) -> None:
    nodes = small_tree(fleet)
    fleet.fog("top", task={"bundle": str(BUNDLE), "rounds": 0}, plan={"steps": 2})
    fleet.start(*nodes)
    for release, victim in enumerate(("fog-0", "device-1", "top"), 1):
        fleet.until(partial(reached, release=2 * release))
        fleet.kill(victim)
        fleet.start(victim)
    fleet.until(lambda s: set(s) == set(nodes) and fact(s["top"], "release") >= 8)
    running = edgemw("audit", fleet.folder / "top")
    assert (running.returncode, running.stdout) == (3, "")
    assert "another process uses it" in running.stderr
    for node in nodes:  # in the middle of whatever they are doing
        fleet.kill(node)
    done = edgemw("audit", fleet.folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["tasks"]
    rows = {row["node"]: row for row in found["rows"]}
    assert found["faults"] == []
    assert [row["node"] for row in found["rows"][:2]] == ["top", "fog-0"]
    assert rows["top"]["counted"]["updates"] >= 6
    for row in rows.values():
        for what in ("updates", "weight"):
            assert row["sent"][what] == row["counted"][what] + row["waiting"][what] + row["returned"][what]
    alone = edgemw("audit", fleet.folder / "top", fleet.folder / "fog-0", fleet.folder / "device-1")
    assert alone.returncode == 1
    assert "! device-0 has sent updates to fog-0, and its books are not among the folders" in alone.stdout


def test_a_restarted_top_goes_on_from_its_last_release(fleet: Fleet) -> None:
    nodes = small_tree(fleet)
    fleet.start(*nodes)
    before = fact(fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 3)["top"], "release")
    fleet.kill("top")
    fleet.kill("device-0")
    fleet.kill("device-1")  # nobody is left to make another release
    fleet.start("top")
    after = fleet.until(lambda s: "top" in s and s["top"].status.state == "collecting")["top"]
    assert fact(after, "release") >= before


def test_a_killed_device_does_not_block_and_status_says_why_it_is_missing(fleet: Fleet) -> None:
    nodes = small_tree(fleet)
    fleet.start(*nodes)
    reached = fact(fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 1)["top"], "release")
    fleet.kill("device-1")
    statuses = fleet.until(lambda s: s["device-1"].status.state == "lost" and fact(s["top"], "release") >= reached + 3)
    assert "connection broke" in statuses["device-1"].status.reason


def test_a_bundle_is_published_to_a_running_net_and_picked_up(fleet: Fleet) -> None:
    nodes = small_tree(fleet)
    fleet.fog("top", task={"rounds": 0}, plan={"steps": 2})
    fleet.start(*nodes)
    fleet.until(lambda s: set(s) == set(nodes) and all("no task" in x.status.reason for x in s.values()))
    published = edgemw("task", "publish", BUNDLE, "--broker", fleet.url, "--net", fleet.net, "--json")
    assert json.loads(published.stdout) == {"task": "digits", "top": "top", "taken": True, "release": 0, "reason": ""}, (
        published.stderr
    )
    fleet.until(lambda s: fact(s["device-0"], "release") >= 1)


def test_predictions_through_every_door_and_with_the_network_gone(fleet: Fleet, broker: Broker) -> None:
    nodes = small_tree(fleet)
    fleet.start(*nodes)
    fleet.until(lambda s: "device-0" in s and fact(s["device-0"], "release") >= 1)
    url = fleet.address("device-0", "serving")
    sample = json.dumps([[0.0] * 64])
    online = edgemw("predict", "--url", url, "--task", "digits", "--json", sample)
    assert online.returncode == 0, online.stderr
    broker.stop()
    for node in nodes[:3]:
        fleet.kill(node)
    fleet.start("device-0")  # no broker, no fog: it serves from its last good release
    url = fleet.address("device-0", "serving")
    ready = json.loads(fleet.get("device-0", "serving", "/v2/models/digits"))
    assert int(ready["versions"][0]) >= 1
    offline = edgemw("predict", "--url", url, "--task", "digits", "--json", sample)
    assert offline.returncode == 0, offline.stderr
    fleet.kill("device-0")
    predictor = Predictor(fleet.folder / "device-0" / "releases")
    assert predictor.predict(np.zeros((2, 64), np.float32)).shape == (2, 10)


def test_a_stored_release_that_cannot_be_opened_does_not_keep_a_device_from_starting(fleet: Fleet) -> None:
    bundle = read_bundle(BUNDLE.read_bytes())
    store = ReleaseStore(fleet.folder / "device-0" / "releases", 3)
    store.save("digits", replace(bundle, infer=b"no graph"), 1, 7, bundle.theta0)
    fleet.fog("top")
    fleet.device("device-0", "top")
    fleet.start("device-0")
    assert json.loads(fleet.get("device-0", "serving", "/v2"))["name"] == "edgemw"
    assert "release 7 is not served: ONNX Runtime cannot open the graph" in log_of(fleet, "device-0")
    fleet.start("top")
    fleet.until(lambda s: "device-0" in s and fact(s["device-0"], "release") >= 1)
    assert int(json.loads(fleet.get("device-0", "serving", "/v2/models/digits"))["versions"][0]) >= 0


def test_a_release_that_is_worse_on_the_devices_own_samples_is_not_served(fleet: Fleet) -> None:
    bundle = read_bundle(BUNDLE.read_bytes())
    fleet.fog("top")
    fleet.device("device-0", "top", serving={"http": "127.0.0.1:0", "guard": "accuracy", "guard_tolerance": 0.05})
    with np.load(fleet.folder / "device-0.npz") as found:
        everything = Samples(found["x"], found["y"])
    plan = Plan(lr=0.1, epochs=60, batch_size=8)
    trained = train(open_oracle(bundle, 1), bundle.theta0, everything, plan, 0, lambda: False)
    store = ReleaseStore(fleet.folder / "device-0" / "releases", 3)
    store.save("digits", bundle, 1, 7, bundle.theta0 + trained.delta)
    fleet.start("top", "device-0")
    fleet.until(
        lambda s: "device-0" in s and "is not served: its accuracy on this device's samples" in s["device-0"].status.reason
    )
    assert json.loads(fleet.get("device-0", "serving", "/v2/models/digits"))["versions"] == ["7"]


def test_a_device_serves_int8_where_it_is_asked_for_and_can_measure_it(fleet: Fleet) -> None:
    fleet.fog("top")
    serving = {"http": "127.0.0.1:0", "int8": True, "int8_tolerance": 1.0}
    fleet.device("device-0", "top", serving=serving)
    with np.load(fleet.folder / "device-0.npz") as found:
        np.savez(fleet.folder / "all.npz", x=found["x"], y=found["y"], split=np.zeros(len(found["y"]), int))
    fleet.device("device-1", "top", data=fleet.folder / "all.npz", serving=serving)
    fleet.start("top", "device-0", "device-1")
    reason = "is served as float32: no samples are held out to measure int8 on"
    statuses = fleet.until(
        lambda s: (
            "device-0" in s and fact(s["device-0"], "release") >= 1 and "device-1" in s and reason in s["device-1"].status.reason
        )
    )
    assert statuses["device-0"].status.reason == ""
    for node, precision in (("device-0", "int8"), ("device-1", "float32")):
        fleet.said(node, f"precision={precision}")
        assert json.loads(fleet.get(node, "serving", "/v2/models/digits"))["parameters"]["precision"] == precision
        assert Predictor(fleet.folder / node / "releases").precision == precision


def test_a_device_without_onnxruntime_says_in_one_line_what_to_install(fleet: Fleet) -> None:
    (fleet.folder / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module\", name='onnxruntime')\n")
    command = [sys.executable, "-m", "edgemw", "device", "--config", str(fleet.device("device-0", "top"))]
    path = f"{fleet.folder}{os.pathsep}{ROOT}"
    done = subprocess.run(command, capture_output=True, text=True, env=environment() | {"PYTHONPATH": path}, check=False)
    assert (done.returncode, done.stderr) == (3, "edgemw: a device needs onnxruntime: pip install 'edgemw[device]'\n")


def test_a_device_says_now_and_then_how_far_it_is(fleet: Fleet) -> None:
    fleet.fog("top", task={"bundle": str(BUNDLE), "rounds": 3}, plan={"steps": 2})
    path = fleet.device("device-0", "top")
    fleet.start("top")
    code = (
        "import sys; from edgemw.app import running; from edgemw.cli.main import main; running.SUMMARY_S = 0.3; sys.exit(main())"
    )
    with (fleet.folder / "device-0.log").open("wb") as log:
        command = [sys.executable, "-c", code, "device", "--config", str(path)]
        fleet.processes["device-0"] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
    fleet.until(lambda _: "task=digits state=idle release=3 trained=3 pending=0" in log_of(fleet, "device-0"))


def log_of(fleet: Fleet, node: str) -> str:
    """What a node has logged so far."""
    return (fleet.folder / f"{node}.log").read_text()


def test_metrics_and_health_of_every_node(fleet: Fleet, broker: Broker) -> None:
    nodes = small_tree(fleet)
    fleet.start(*nodes)
    fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 2)
    for node in nodes:
        metrics = fleet.get(node, "telemetry", "/metrics")
        assert f'device="{node}"' in metrics
        assert json.loads(fleet.get(node, "telemetry", "/healthz"))["healthy"] is True
    assert "edgemw_" in metrics


def test_ctrl_c_once_finishes_what_is_in_hand(fleet: Fleet) -> None:
    nodes = small_tree(fleet)
    fleet.start(*nodes)
    fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 1)
    for node in ("device-0", "fog-0"):
        fleet.signal(node, signal.SIGINT)
        assert fleet.wait(node) == 0
    statuses = fleet.until(lambda s: {s[node].status.state for node in ("device-0", "fog-0")} == {"stopped"})
    assert (statuses["device-0"].status.reason, statuses["fog-0"].status.reason) == ("", "")
    assert "its parent 'fog-0' is stopped" in statuses["device-1"].status.reason


def test_ctrl_c_twice_stops_at_once(fleet: Fleet, broker: Broker) -> None:
    small_tree(fleet)
    fleet.start("device-0")
    fleet.address("device-0", "serving")
    broker.stop()
    fleet.signal("device-0", signal.SIGINT)
    fleet.said("device-0", "once more stops at once")
    fleet.signal("device-0", signal.SIGINT)
    assert fleet.wait("device-0", 20) in (0, 130, -signal.SIGINT)  # without a task it is leaving already when the second comes


@pytest.mark.parametrize(("x", "reason"), [(np.full((40, 64), np.nan), "NaN"), (np.zeros((40, 3)), "shape")])
def test_data_that_do_not_fit_are_refused_with_a_reason_and_hold_nobody_up(fleet: Fleet, x: np.ndarray, reason: str) -> None:
    nodes = small_tree(fleet)
    bad = fleet.folder / "bad.npz"
    np.savez(bad, x=x.astype(np.float32), y=np.zeros(40, np.int64), split=np.zeros(40))
    fleet.device("device-1", "fog-0", bad)
    fleet.start(*nodes)
    statuses = fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 3)
    statuses = fleet.until(lambda s: "device-1" in s and reason in s["device-1"].status.reason)
    assert fact(statuses["device-1"], "updates_sent") == 0
    status = edgemw("status", "--broker", fleet.url, "--net", fleet.net)
    assert status.returncode == 1
    assert "data refused" in status.stdout


def test_foreign_and_hostile_payloads_are_counted_and_dropped(fleet: Fleet) -> None:
    import asyncio

    from edgemw.transport.mqtt import MqttLink, MqttSettings

    nodes = small_tree(fleet)
    fleet.start(*nodes)
    reached = fact(fleet.until(lambda s: "top" in s and fact(s["top"], "release") >= 1)["top"], "release")

    async def attack() -> None:
        async with MqttLink(MqttSettings(fleet.url, "stranger", session_expiry_s=0)) as link:
            for topic in ("up/device-0/digits", "up/stranger/digits", "st/device-0", "dn/all/digits/release", "rq/status/x"):
                for payload in (b"{}", b"\x00" * 1000, b'{"temperature": 21.5}', b"\x97" * 50_000, b"\xc1"):
                    await link.publish(f"em1/{fleet.net}/fog-0/{topic}", payload)

    asyncio.run(attack())
    fleet.until(lambda s: fact(s["top"], "release") >= reached + 3)
    assert 'reason="msgpack"' in fleet.get("fog-0", "telemetry", "/metrics")
