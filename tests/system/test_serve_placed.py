"""Predictions where they are best made, by real processes over a real broker: the own one, or another service's."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemw.core.bundle import Bundle, read_bundle
from edgemw.transport.broker import Broker
from tests.system.fleet import PATIENCE_S, Fleet, edgemw
from tests.system.test_serve import DIGITS, X, save, serving, theta
from tests.system.test_serve_mqtt import OWN, SERVER, asking, expected, start

SOMEWHERE = ("--node", "a", "--net", "n", "--broker", "mqtt://127.0.0.1:1")
FOG, NET = "fog-0", "line-3"
QUESTION = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": X.ravel().tolist()}]}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


@contextmanager
def fog_service(folder: Path, bundle: Bundle, broker: Broker) -> Iterator[None]:
    """Another model of the task, put into a store by hand."""
    weights = folder / "weights.npy"
    np.save(weights, theta(bundle, 90))
    done = edgemw("model", "add", folder / "models", DIGITS, "--weights", weights, "--release", "90", "--json")
    assert json.loads(done.stdout)["number"] == 90, done.stderr
    where = ("--broker", broker.url, "--net", NET, "--node", FOG)
    with serving(str(folder / "models"), "--http", "", *where) as server:
        server.until("answering over MQTT")
        yield


def infer(connection: http.client.HTTPConnection, **parameters: object) -> list[dict[str, Any]]:
    """All that is said to a question."""
    connection.request("POST", "/v2/models/digits/infer", json.dumps(QUESTION | {"parameters": parameters}))
    return [json.loads(line) for line in connection.getresponse().read().splitlines()]


def outputs_of(document: dict[str, Any]) -> Any:
    return np.asarray(document["outputs"][0]["data"], np.float32)


def test_a_device_asks_its_fog_node_where_it_is_not_sure_and_goes_on_alone_without_it(
    tmp_path: Path, bundle: Bundle, broker: Broker
) -> None:
    save(tmp_path / "own", bundle, 4)
    asks = ("--http", "127.0.0.1:0", "--ask", FOG, "--ask-below", "1", "--ask-deadline", "5s")
    with start(tmp_path / "own", broker, *asks) as device:
        connection = device.connect()
        device.until("answering over MQTT")
        with fog_service(tmp_path, bundle, broker):
            [answer] = infer(connection)
            assert (answer["model_version"], answer["parameters"]) == ("90", {"node": FOG})
            np.testing.assert_allclose(outputs_of(answer), expected(bundle, 90), rtol=1e-5)

            early, final = infer(connection, early=True)
            assert (early["model_version"], early["parameters"]) == ("4", {"final": False})
            np.testing.assert_allclose(outputs_of(early), expected(bundle, 4), rtol=1e-5)
            assert final["model_version"] == "90"

            with asking(broker.url) as client:
                client.ask(json.dumps(QUESTION | {"parameters": {"early": True}}).encode(), ResponseTopic=f"{OWN}one")
                versions = [client.answer()[1]["model_version"] for _ in range(2)]
                assert versions == ["4", "90"]

        [answer] = infer(connection, timeout=100_000)  # nobody is there to be asked
        assert answer["model_version"] == "4"
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        for decision, count in (("other", 3), ("late", 1)):
            assert f'placed_requests_total{{decision="{decision}",device="{SERVER}"}} {count}.0' in metrics


@pytest.mark.parametrize("process", [False, True])
def test_a_device_of_a_fleet_answers_over_mqtt_and_asks_before_it_has_a_release(
    fleet: Fleet, bundle: Bundle, broker: Broker, process: bool
) -> None:
    fleet.net = NET
    table = {"http": "127.0.0.1:0", "process": process, "mqtt": True, "ask": FOG, "ask_below": 0.0, "ask_deadline": "5s"}
    fleet.device(SERVER, "fog-0", serving=table)
    with fog_service(fleet.folder, bundle, broker), asking(broker.url) as client:
        fleet.start(SERVER)
        fleet.said(SERVER, "answering over MQTT")
        client.ask(json.dumps(QUESTION).encode())
        _, document, _ = client.answer()
        assert (document["model_version"], document["parameters"]) == ("90", {"node": FOG})
        fleet.fog("top", task={"bundle": str(DIGITS), "rounds": 0}, plan={"steps": 2})
        fleet.fog("fog-0", "top")
        fleet.start("top", "fog-0")
        until = time.monotonic() + PATIENCE_S
        while "parameters" in document:  # once it has a release it answers itself
            assert time.monotonic() < until
            client.ask(json.dumps(QUESTION).encode())
            _, document, _ = client.answer()
        metrics = fleet.get(SERVER, "serving", "/metrics")
        assert f'placed_requests_total{{decision="own",device="{SERVER}"}} 1.0' in metrics
        fleet.signal(SERVER, signal.SIGTERM)
        assert fleet.wait(SERVER) == 0


def test_a_service_that_only_asks_takes_no_questions(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path, bundle, 4)
    with start(tmp_path, broker, "--ask", FOG, "--ask-only") as device:
        said = device.until("answering over MQTT").string
        assert f"asks={FOG}" in said
        assert "questions=" not in said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--set", "serving.queue=1"), 2, "give --config"),
        (
            ("--node", "a", "--net", "n", "--broker", "mqtt://127.0.0.1:1", "--ask-below", "0.5"),
            2,
            "--ask-below needs --ask NODE",
        ),
        (("--node", "a", "--net", "n", "--broker", "mqtt://127.0.0.1:1", "--ask", "a"), 3, "would ask itself"),
        (("--node", "a", "--net", "n", "--broker", "mqtt://127.0.0.1:1", "--ask", "A"), 3, "--ask"),
        (("--canary", "1.5"), 2, "from 0 to 1"),
        (("--batch-latency", "soon"), 2, "not a duration"),
        (("--queue", "0"), 2, "1 or more"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = edgemw("serve", tmp_path, *arguments)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
