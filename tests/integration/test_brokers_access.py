"""NATS and RabbitMQ on the files of brokers/: who gets in, who may say and hear what, and how large it may be."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.mqtt import MqttLink, MqttSettings, TlsSettings
from edgemw.wire.chunks import CHUNK_BYTES
from edgemw.wire.topics import build
from tests.contract.test_link_kinds import next_down, next_received, next_up, run
from tests.support.nats import NAMES, Cluster, find_nats
from tests.support.programs import needed
from tests.support.rabbitmq import RabbitMq, find_rabbitmq

NET = "quickstart"
KNOWN = ("device-0", "device-1", "fog-0", "monitor")
STRANGER = "stranger"
ALLOWED = (
    ("presence", {"node": "device-0"}),
    ("update", {"node": "device-0", "task": "digits"}),
    ("chunk", {"fog": "fog-0", "node": "device-0", "transfer": "t1"}),
)
DENIED = (
    ("update", {"node": "device-1", "task": "digits"}),
    ("presence", {"node": "device-1"}),
    ("release", {"task": "digits"}),
    ("reply", {"node": "device-0", "task": "digits"}),
    ("blob", {"digest": "abc", "index": "0"}),
)
AnyBroker = Cluster | RabbitMq


@pytest.fixture(scope="module", params=["nats", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyBroker]:
    """One after the other."""
    kind = str(request.param)
    needed(f"{kind}-server", find_nats() if kind == "nats" else find_rabbitmq())
    start: type[AnyBroker] = Cluster if kind == "nats" else RabbitMq
    with start(tmp_path_factory.mktemp(kind), (*KNOWN, STRANGER)) as started:
        yield started


def link(broker: AnyBroker, node: str) -> MqttLink:
    tls = TlsSettings(ca=broker.tls / "ca.crt", cert=broker.tls / f"{node}.crt", key=broker.tls / f"{node}.key")
    return MqttLink(MqttSettings(broker.url, f"em1-{NET}-{node}", tls=tls, protocol=4, session_expiry_s=0, flush_s=0.1))


async def say(speaker: MqttLink, topic: str, payload: bytes) -> None:
    """Publish; a broker of 3.1.1 acknowledges what it does not allow, or hangs up."""
    try:
        async with asyncio.timeout(5):
            await speaker.publish(topic, payload)
    except (LinkError, TimeoutError):
        return


def test_a_device_says_what_is_its_own_and_nothing_else(broker: AnyBroker) -> None:
    async def scenario() -> None:
        async with link(broker, "fog-0") as fog:
            await fog.subscribe(f"em1/{NET}/fog-0/#")
            heard = fog.events()
            for channel, values in DENIED:
                async with link(broker, "device-0") as device:
                    await say(device, build(NET, "fog-0", channel, **values), b"not mine")
            async with link(broker, "device-0") as device:
                for channel, values in ALLOWED:
                    topic = build(NET, "fog-0", channel, **values)
                    await device.publish(topic, b"mine")
                    received = await next_received(heard)  # nothing came before it
                    assert (received.topic, received.payload) == (topic, b"mine")

    run(scenario())


@pytest.mark.parametrize("topic_filter", ["em1/#", "#", f"em1/{NET}/fog-0/dn/device-1/#", "$MQTT/sub/#", "$MQTT/sub/+"])
def test_a_device_cannot_listen_to_what_is_for_others(broker: AnyBroker, topic_filter: str) -> None:
    async def scenario() -> None:
        async with link(broker, "device-0") as device:
            events = device.events()
            await next_up(events)
            try:
                await device.subscribe(topic_filter)
            except LinkError:
                return
            await next_down(events)  # RabbitMQ hangs up instead

    run(scenario())


def test_a_chunk_gets_through(broker: AnyBroker) -> None:
    async def scenario() -> None:
        topic = build(NET, "fog-0", "chunk", fog="fog-0", node="device-0", transfer="t1")
        async with link(broker, "fog-0") as fog, link(broker, "device-0") as device:
            await fog.subscribe(topic)
            await device.publish(topic, bytes(CHUNK_BYTES))
            assert len((await next_received(fog.events())).payload) == CHUNK_BYTES

    run(scenario())


def test_what_is_more_than_ten_times_as_large_does_not_get_through_rabbitmq(broker: AnyBroker) -> None:
    if isinstance(broker, Cluster):
        pytest.skip("NATS enforces max_payload for MQTT only after 2.12.1 (its issue 7439)")

    async def scenario() -> None:
        topic = build(NET, "fog-0", "update", node="device-0", task="digits")
        async with link(broker, "fog-0") as fog:
            await fog.subscribe(topic)
            async with link(broker, "device-0") as device:
                await say(device, topic, bytes(10 * CHUNK_BYTES + 1_000))
            async with link(broker, "device-0") as device:
                await device.publish(topic, b"small")
                assert (await next_received(fog.events())).payload == b"small"

    run(scenario())


@pytest.mark.parametrize("node", [STRANGER, None])
def test_who_has_no_account_or_no_certificate_is_not_let_in(broker: AnyBroker, node: str | None) -> None:
    async def scenario() -> None:
        tls = TlsSettings(ca=broker.tls / "ca.crt")
        if node is not None:
            tls = TlsSettings(ca=broker.tls / "ca.crt", cert=broker.tls / f"{node}.crt", key=broker.tls / f"{node}.key")
        settings = MqttSettings(broker.url, f"em1-{NET}-{STRANGER}", tls=tls, protocol=4)
        with pytest.raises(LinkError):
            await MqttLink(settings).__aenter__()

    run(scenario())


@pytest.fixture
def cluster(broker: AnyBroker) -> Cluster:
    if not isinstance(broker, Cluster):
        pytest.skip("RabbitMQ has no other door")
    return broker


def test_the_other_door_of_nats_takes_nobody_by_name_and_no_node_by_certificate(cluster: Cluster) -> None:
    port = cluster.port(NAMES[0], "CLIENTS")
    authority = cluster.tls / "ca.crt"
    for node in (None, "device-0"):
        context = ssl.create_default_context(cafile=authority)
        if node is not None:
            context.load_cert_chain(cluster.tls / f"{node}.crt", cluster.tls / f"{node}.key")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            assert plain.recv(4096).startswith(b"INFO ")
            answer = _ask(context, plain)
            assert b"PONG" not in answer


def _ask(context: ssl.SSLContext, plain: socket.socket) -> bytes:
    """What the server says to somebody who takes a name that has no password."""
    try:
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            encrypted.sendall(b'CONNECT {"verbose":false,"user":"CN=monitor","pass":""}\r\nPING\r\n')
            answer = b""
            while part := encrypted.recv(4096):
                answer += part
            return answer
    except OSError as error:  # hung up in the middle of the handshake, or after it
        return str(error).encode()
