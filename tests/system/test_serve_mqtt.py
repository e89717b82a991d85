"""`edgemw serve` over a real broker: any MQTT client may ask, of 5 and of 3.1.1."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgemw.app import settings
from edgemw.app.asking import open_asker
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.serving.session import open_inference
from edgemw.transport.broker import Broker
from tests.system.fleet import edgemw
from tests.system.test_serve import DIGITS, X, save, serving, theta

NET, SERVER, ASKER = "line-3", "device-0", "panel"
QUESTION, OWN = f"em1/{NET}/{SERVER}/pq/{ASKER}/digits", f"em1/{NET}/{SERVER}/pa/{ASKER}/"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": X.ravel().tolist()}]}).encode()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


class Asking:
    """A plain paho client."""

    def __init__(self, url: str, protocol: MQTTProtocolVersion) -> None:
        self.answers: queue.Queue[MQTTMessage] = queue.Queue()
        subscribed: queue.Queue[int] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_message = lambda client, data, message: self.answers.put(message)
        self._client.on_subscribe = lambda *said: subscribed.put(1)
        self._client.connect("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._client.loop_start()
        self._client.subscribe(OWN + "#")
        subscribed.get(timeout=10)

    def ask(self, payload: bytes = BODY, *, topic: str = QUESTION, retain: bool = False, **properties: Any) -> None:
        said = None
        if properties:
            said = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(said, name, value)
        self._client.publish(topic, payload, retain=retain, properties=said)

    def answer(self) -> tuple[str, dict[str, Any], MQTTMessage]:
        message = self.answers.get(timeout=10)
        return message.topic, json.loads(message.payload), message

    def listen(self, topic_filter: str) -> None:
        self._client.subscribe(topic_filter)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def asking(url: str, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5) -> Iterator[Asking]:
    client = Asking(url, protocol)
    try:
        yield client
    finally:
        client.close()


def start(folder: Path, broker: Broker, *more: str) -> Any:
    return serving(str(folder), "--http", "", "--broker", broker.url, "--net", NET, "--node", SERVER, *more)


def correlation_of(message: MQTTMessage) -> bytes:
    return bytes(vars(message.properties)["CorrelationData"])


def expected(bundle: Bundle, number: int) -> Vector:
    return open_inference(bundle.infer, theta(bundle, number), size=bundle.manifest.size).run(X).ravel()


def test_a_client_of_mqtt_5_says_where_it_wants_its_answer(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path, bundle, 4)
    with start(tmp_path, broker) as server, asking(broker.url) as client:
        server.until("answering over MQTT")
        for number in range(3):
            client.ask(ResponseTopic=f"{OWN}here/{number}", CorrelationData=bytes([0, number, 255]))
        for number in range(3):
            topic, document, message = client.answer()
            assert topic == f"{OWN}here/{number}"
            assert correlation_of(message) == bytes([0, number, 255])
            assert document["model_version"] == "4"
            np.testing.assert_array_equal(np.asarray(document["outputs"][0]["data"], np.float32), expected(bundle, 4))
        client.ask(ResponseTopic="em1/line-3/device-0/dn/all/digits/release", CorrelationData=b"7")
        topic, document, message = client.answer()
        assert (topic, document["status"], correlation_of(message)) == (OWN + "digits", 400, b"7")


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_without_that_the_answer_has_a_topic_of_its_own(
    tmp_path: Path, bundle: Bundle, broker: Broker, protocol: MQTTProtocolVersion
) -> None:
    save(tmp_path, bundle, 4)
    with start(tmp_path, broker) as server, asking(broker.url, protocol) as client:
        server.until("answering over MQTT")
        client.ask(b"")
        topic, document, _ = client.answer()
        assert (topic, document["name"]) == (OWN + "digits", "digits")
        client.ask(json.dumps(json.loads(BODY) | {"id": "a7"}).encode())
        topic, document, _ = client.answer()
        assert (topic, document["id"], document["model_version"]) == (OWN + "digits", "a7", "4")
        client.ask(b"{}", topic=QUESTION.replace("digits", "nix"))
        topic, document, _ = client.answer()
        assert (topic, document["status"]) == (OWN + "nix", 404)
        save(tmp_path, bundle, 5)
        server.until("serving.*release=5")
        client.ask()
        assert client.answer()[1]["model_version"] == "5"


def test_a_question_that_the_broker_keeps_is_not_answered_again(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path, bundle, 4)
    with asking(broker.url) as client:
        client.ask(b"{}", retain=True)
        with start(tmp_path, broker) as server:
            server.until("answering over MQTT")
            client.ask()
            assert "outputs" in client.answer()[1]
        assert client.answers.empty()


def test_it_answers_again_after_the_broker_was_away(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path, bundle, 4)
    with start(tmp_path, broker) as server:
        server.until("answering over MQTT")
        broker.stop()
        server.until("no answers over MQTT")
        server.until("trying again")
        broker.start()
        server.until("answering over MQTT")
        with asking(broker.url) as client:
            client.ask()
            assert client.answer()[1]["model_version"] == "4"


def test_two_servers_of_one_name_are_noticed(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path, bundle, 4)
    with start(tmp_path, broker) as one:
        one.until("answering over MQTT")
        with start(tmp_path, broker) as other:
            other.until("another service answers as device-0 in the net line-3")
            one.until("another service answers as device-0 in the net line-3")


def test_sensors_are_read_and_predictions_published(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path / "store", bundle, 4)
    fields = json.dumps([f"pixels.{n}" for n in range(64)])
    (tmp_path / "streams.toml").write_text(
        f"""
[[stream]]
name = "camera"
task = "digits"
source = "zigbee2mqtt/camera"
fields = {fields}
target = "{OWN}camera"
home_assistant = "homeassistant"
"""
    )
    sample = json.dumps({"pixels": X.ravel().tolist(), "linkquality": 80}).encode()
    with start(tmp_path / "store", broker, "--streams", str(tmp_path / "streams.toml")) as server, asking(broker.url) as client:
        server.until("answering over MQTT.*streams=1")
        client.ask(b"no", topic="zigbee2mqtt/camera")
        server.until("a publication was left out: it is not JSON.*stream=camera")
        client.ask(sample, topic="zigbee2mqtt/camera", retain=True)
        topic, document, _ = client.answer()
        assert (topic, document["task"], document["release"]) == (OWN + "camera", "digits", 4)
        assert document["class"] == int(expected(bundle, 4).argmax())
        np.testing.assert_allclose(np.asarray(document["outputs"]), expected(bundle, 4), rtol=1e-5)
    with asking(broker.url) as later:
        later.listen("homeassistant/sensor/+/config")
        topic, document, message = later.answer()
        assert (topic, document["state_topic"]) == ("homeassistant/sensor/edgemw_device_0_camera/config", OWN + "camera")
        assert message.retain


def test_without_mqtt_5_an_answer_is_known_by_its_number(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    """Two that ask by one name hear each other's answers."""
    save(tmp_path, bundle, 4)
    session = open_inference(bundle.infer, theta(bundle, 4), size=bundle.manifest.size)
    old = settings.Broker(url=broker.url, protocol="3.1.1")

    async def ask(first: int) -> None:
        async with open_asker(old, NET, SERVER, {}, 10.0, name=ASKER) as asker:
            described = await asker.ask("digits", None, 10.0)
            assert described["inputs"][0]["shape"] == [-1, 64]
            for number in range(first, first + 30):
                x = np.full((1, 64), number / 100, np.float32)
                tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": x.ravel().tolist()}
                answer = await asker.ask("digits", {"inputs": [tensor]}, 10.0)
                np.testing.assert_allclose(answer["outputs"][0]["data"], session.run(x).ravel(), rtol=1e-4)

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask(0))
            tasks.create_task(ask(50))

    with start(tmp_path, broker) as server:
        server.until("answering over MQTT")
        asyncio.run(both())


def test_the_command_line_asks_too(tmp_path: Path, bundle: Bundle, broker: Broker) -> None:
    save(tmp_path, bundle, 4)
    where = ("--broker", broker.url, "--net", NET, "--task", "digits")
    sample = json.dumps(X.tolist())
    with start(tmp_path, broker) as server:
        server.until("answering over MQTT")
        done = edgemw("predict", "--node", SERVER, *where, "--json", sample, "--json-output")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert (document["task"], document["release"]) == ("digits", 4)
        np.testing.assert_allclose(np.asarray(document["outputs"][0]), expected(bundle, 4), rtol=1e-5)
        refused = edgemw("predict", "--node", SERVER, *where, "--as", ASKER, "--json", "[[1, 2]]")
        assert (refused.returncode, "[-1, 64]" in refused.stderr) == (3, True), refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--node", "device-0"), "say which net"),
        (("--node", "Device", "--net", "n", "--broker", "mqtt://127.0.0.1:1"), "--node"),
        (("--net", "n", "--broker", "mqtt://127.0.0.1:1"), "say who answers"),
        (("--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_what_cannot_be_reached_is_said_before_anything_is_served(
    tmp_path: Path, bundle: Bundle, arguments: tuple[str, ...], said: str
) -> None:
    save(tmp_path, bundle, 4)
    command = [sys.executable, "-m", "edgemw", "serve", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, said in done.stderr) == (3, True), done.stderr
