"""A whole net on generated files: everything that nodes and people do is allowed, and no more was asked for."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgemw.app.places import identity_files
from edgemw.transport.broker import find_mosquitto
from tests.support.programs import needed
from tests.support.secured import Secured
from tests.system.fleet import BUNDLE, ROOT, Fleet, edgemw, when
from tests.system.test_up import Run, conserved

DEPLOYMENT = f"""schema = 1
name = "farm"
[task]
bundle = "{BUNDLE}"
rounds = 1000
[data]
source = "digits"
[window]
deadline = "10s"
[telemetry]
publish = "1s"
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
count = 2
[tiers.device]
role = "device"
parent = "fog"
count = 2
serving = {{ mqtt = true }}
[tiers.camera]
role = "device"
parent = "fog"
count = 2
serving = {{ ask = "device-0", ask_below = 1.0, ask_deadline = "10s" }}
"""
NODES = {"top", "fog-0", "fog-1", "device-0", "device-1", "camera-0", "camera-1"}
IDENTITIES = ", ".join(f'{key} = "pki/nodes/{{node}}/{key}.pem"' for key in ("ca", "cert", "key")).join("{}")
QUESTION = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": np.ones(64).tolist()}]}


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    needed("mosquitto", find_mosquitto())
    (tmp_path / "edgemw.toml").write_text(DEPLOYMENT)
    with Secured(tmp_path, tmp_path / "edgemw.toml", "--asker", "kiosk") as broker:
        yield broker


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Whatever still runs at the end is ended."""
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def test_a_net_does_all_that_it_can_do_and_nothing_is_denied(secured: Secured, runs: list[Run], tmp_path: Path) -> None:
    file, out = tmp_path / "edgemw.toml", tmp_path / "out"
    there = ("--pki", str(secured.pki), "--set", f"broker.url={secured.url}")
    run = Run(out, *there, file=file)
    runs.append(run)
    run.until_release(2)
    who = ("--pki", secured.pki, "--broker", secured.url, "--net", "farm")

    own = tmp_path / "own.toml"  # says in its own words what --pki says
    own.write_text(f'{DEPLOYMENT}[broker]\nurl = "{secured.url}"\ntls = {IDENTITIES}\n')
    status = edgemw("status", "--config", own, "--json")
    assert status.returncode == 0, status.stdout + status.stderr
    assert {node["node"] for node in json.loads(status.stdout)["nodes"]} == NODES

    page = address(out, "top", "telemetry") + "/overview"
    shown = when(lambda: json.loads(asked(page)), lambda document: {node["node"] for node in document["nodes"]} == NODES)
    assert shown["refused"] == ""
    below = address(out, "fog-0", "telemetry") + "/overview"
    when(lambda: {n["node"] for n in json.loads(asked(below))["nodes"]}, lambda nodes: nodes == {"fog-0", "device-0", "camera-0"})

    answer = edgemw(
        "predict",
        *who,
        "--as",
        "kiosk",
        "--node",
        "device-0",
        "--task",
        "digits",
        "--json",
        json.dumps([1.0] * 64),
        "--json-output",
    )
    assert answer.returncode == 0, answer.stderr
    camera = address(out, "camera-0", "serving") + "/v2/models/digits/infer"
    asked(camera, json.dumps(QUESTION).encode())
    when(lambda: secured.log, lambda log: "Received PUBLISH from camera-0" in log and "/device-0/pa/camera-0/" in log)

    published = edgemw("task", "publish", BUNDLE, "--config", own, "--json")
    assert published.returncode == 0, published.stdout + published.stderr
    doctor = edgemw("doctor", "--config", out / "nodes/device-1.toml", "--json")
    found = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert [name for name, check in found.items() if check["level"] == "fail"] == []
    assert found["access rules"]["level"] == "ok"

    run.process.send_signal(signal.SIGINT)
    rounds = run.summary()["rounds"]
    to_the_end = edgemw("up", file, *there, "--set", f"task.rounds={rounds + 2}", "--out", out, "--json", timeout_s=120)
    assert to_the_end.returncode == 0, to_the_end.stderr
    summary = json.loads(to_the_end.stdout.splitlines()[-1])
    assert summary["finished"]
    assert summary["reasons"] == {}
    assert conserved(summary)
    audit = edgemw("audit", out)
    assert audit.returncode == 0, audit.stdout
    assert secured.denied == []
    forgotten = edgemw("status", "--config", out / "nodes/fog-0.toml", "--forget", "camera-0")
    assert forgotten.returncode == 0, forgotten.stderr
    assert {line.split("'")[1] for line in secured.denied} == {"em1/farm/top/rq/status/fog-0"}  # siblings are not its to ask


MASKED = f"""schema = 1
name = "hive"
[task]
bundle = "{BUNDLE}"
rounds = 3
[data]
source = "digits"
[codec]
use = "lanes"
parameters = {{ members = 3, blocks = 4 }}
[privacy]
masks = true
threshold = 100
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
[tiers.device]
role = "device"
parent = "fog"
count = 3
"""


def test_keys_shares_and_masked_updates_pass_the_generated_rules(tmp_path: Path, runs: list[Run]) -> None:
    needed("mosquitto", find_mosquitto())
    file, out = tmp_path / "hive.toml", tmp_path / "out"
    file.write_text(MASKED)
    with Secured(tmp_path, file) as broker:
        there = ("--pki", str(broker.pki), "--set", f"broker.url={broker.url}")
        done = edgemw("up", file, *there, "--out", out, "--json", timeout_s=120)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["finished"]
        assert (summary["updates_sent"], summary["reasons"]) == (9, {})
        assert conserved(summary)
        audit = edgemw("audit", out)
        assert audit.returncode == 0, audit.stdout
        assert broker.denied == []


def test_a_node_that_the_broker_does_not_know_says_so(secured: Secured, tmp_path: Path) -> None:
    """The control of the other test: what is denied is in the broker's log, and known where it was said."""
    assert edgemw("pki", "issue", secured.pki, "stranger").returncode == 0
    tls = {f"tls.{key}": str(path) for key, path in identity_files(secured.pki, "stranger").items()}
    with Fleet(tmp_path, secured.url, "farm") as fleet:
        fleet.device("stranger", "fog-0", broker={"url": secured.url, **tls})
        fleet.start("stranger")
        fleet.said("stranger", "Not authorized")
    assert any("'em1/farm/fog-0/st/stranger'" in line for line in secured.denied)


def address(out: Path, node: str, door: str) -> str:
    path = out / "nodes" / node / f"{door}.address"
    return when(lambda: path.read_text() if path.exists() else "", lambda text: text.endswith("\n")).strip()


def asked(url: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data, timeout=20) as answer:
        return str(answer.read().decode())


def test_the_three_commands_of_the_page_on_security(tmp_path: Path) -> None:
    """As they stand there, but for the port and the number of rounds; mosquitto is started as `Secured` does."""
    needed("mosquitto", find_mosquitto())
    page = (ROOT / "docs/security.md").read_text().split("## Three commands")[1]
    make, config, up = page.split("```sh\n")[1].split("\n```")[0].splitlines()
    config, start = config.split(" && ", 1)
    assert start == "(cd broker && mosquitto -d -c mosquitto.conf)"
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in (make, config):
        done = edgemw(*line.split()[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "listener 8883" in (tmp_path / "broker/conf.d/listener.conf").read_text().splitlines()
    with Secured(tmp_path, tmp_path / "examples/quickstart/edgemw.toml") as broker:
        more = ("--set", f"broker.url={broker.url}", "--set", "task.rounds=2")
        done = edgemw(*up.split()[1:], *more, timeout_s=120, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "finished after 2 rounds" in done.stdout
        assert broker.denied == []
