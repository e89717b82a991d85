"""What paho and brokers get wrong and the link absorbs; the contract suite and the fault tests hold the other pitfalls.

Not here, because there is nothing left to go wrong: 2 and 3 (no promise is made on order or the DUP flag), 9 to 11
(nothing is ever handed to paho while it is offline), 14 (topic aliases are not used).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import statistics
from collections.abc import AsyncIterator, Callable

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.broker import Broker, start_broker
from edgemw.transport.causes import cause_logger
from edgemw.transport.link import Down, Received, Up
from edgemw.transport.mqtt import MqttLink, MqttSettings
from tests.contract.test_link_kinds import next_down, next_event, next_received, next_up, run

CONNACK_4 = b"\x20\x02\x00\x00"
CONNACK_5 = b"\x20\x03\x00\x00\x00"


def settings(url: str, client_id: str = "node", protocol: int | str = 4) -> MqttSettings:
    """Settings that reconnect fast."""
    level = {"auto": "auto", 4: 4, 5: 5}[protocol]
    return MqttSettings(
        url=url,
        client_id=client_id,
        protocol=level,  # type: ignore[arg-type]  # the table above holds exactly the allowed values
        reconnect_min_s=0.02,
        reconnect_max_s=0.1,
        connect_timeout_s=2,
        flush_s=0.1,
    )


@contextlib.asynccontextmanager
async def scripted_broker(answer: Callable[[int], list[bytes]]) -> AsyncIterator[str]:
    """A server that answers the n-th CONNECT with the given bytes, then listens in silence; empty bytes hang up."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await reader.read(1000)
            parts = answer(len(writers))
            for part in parts:
                writer.write(part)
                await writer.drain()
            while b"" not in parts and await reader.read(1000):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*(task for task in tasks if task is not None))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00",  # no such packet
        b"\x30\xff\xff\xff\xff\xff",  # a length of more than four bytes
        b"\x30\x01\x00",  # too short for a topic
        b"\x32\x03\x00\x05a",  # a topic longer than its packet
        b"\x40\x00",  # an acknowledgement of nothing
        b"\x90\x00",
        b"\xd0\x01\x00",
        b"\x20\x02\x00\x00\x20\x02\x00\x05",  # accepted twice, then refused
    ],
)
def test_pitfall_5_garbage_ends_a_connection_and_never_the_link(garbage: bytes) -> None:
    def answer(number: int) -> list[bytes]:
        return [CONNACK_4, garbage, b""] if number == 1 else [CONNACK_4, b"\x30\x04\x00\x01xy"]

    async def scenario() -> None:
        async with scripted_broker(answer) as url, MqttLink(settings(url)) as link:
            events = link.events()
            assert isinstance(await next_event(events), Up)
            await next_down(events)
            assert await next_received(events) == Received("x", b"y")

    run(scenario())


def test_a_topic_that_is_not_utf_8_is_dropped_and_acknowledged() -> None:
    bad = b"\x32\x06\x00\x02\xff\xfe\x00\x07"
    good = b"\x30\x04\x00\x01xy"

    async def scenario() -> None:
        async with scripted_broker(lambda _: [CONNACK_4, bad, good]) as url, MqttLink(settings(url)) as link:
            assert await next_received(link.events()) == Received("x", b"y")
            assert link.traffic.dropped == 1
            assert link.traffic.reconnects == 0

    run(scenario())


def test_the_reason_in_a_disconnect_is_passed_on() -> None:
    shutting_down = b"\xe0\x02\x8b\x00"

    async def scenario() -> None:
        async with scripted_broker(lambda _: [CONNACK_5, shutting_down]) as url, MqttLink(settings(url, protocol=5)) as link:
            assert "Server shutting down" in (await next_down(link.events())).reason

    run(scenario())


def test_a_session_that_was_taken_over_names_the_id() -> None:
    taken_over = b"\xe0\x02\x8e\x00"

    async def scenario() -> None:
        async with scripted_broker(lambda _: [CONNACK_5, taken_over]) as url, MqttLink(settings(url, "twin", 5)) as link:
            reason = (await next_down(link.events())).reason
            assert reason == "another client with the id twin has connected: two nodes have the same id?"

    run(scenario())


def test_a_broker_that_never_lets_a_node_in_says_nothing_of_its_id() -> None:
    async def scenario() -> None:
        async with (
            scripted_broker(lambda number: [CONNACK_4, b""] if number == 1 else [b""]) as url,
            MqttLink(settings(url, "alone")) as link,
        ):
            events = link.events()
            reasons = [(await next_down(events)).reason for _ in range(5)]
            assert not [reason for reason in reasons if "alone" in reason]

    run(scenario())


@pytest.mark.parametrize("protocol", [5, 4])
def test_two_nodes_with_one_id_are_told_so_by_a_broker_that_only_hangs_up(mosquitto: Broker, protocol: int) -> None:
    """MQTT 3.1.1 has no reasons, and not every broker of MQTT 5 gives them."""

    async def scenario() -> None:
        async with MqttLink(settings(mosquitto.url, "twin", protocol)) as link:
            events = link.events()
            for _ in range(3):
                await next_up(events)
                async with MqttLink(settings(mosquitto.url, "twin", protocol)):
                    reason = (await next_down(events)).reason
            assert "id twin" in reason
            assert "two nodes have the same id?" in reason

    run(scenario())


def test_limits_come_from_the_connack() -> None:
    properties = b"\x27\x00\x00\x10\x00" + b"\x21\x00\x05" + b"\x24\x00" + b"\x25\x00" + b"\x2a\x00"
    connack = b"\x20" + bytes([3 + len(properties)]) + b"\x00\x00" + bytes([len(properties)]) + properties

    async def scenario() -> None:
        async with scripted_broker(lambda _: [connack]) as url, MqttLink(settings(url, protocol=5)) as link:
            limits = (await next_up(link.events())).limits
            assert (limits.max_packet_bytes, limits.receive_maximum, limits.max_qos) == (4096, 5, 0)
            assert (limits.retain, limits.shared_subscriptions, limits.protocol) == (False, False, 5)
            with pytest.raises(LinkError, match="QoS 1"):
                await link.publish("x", b"")
            with pytest.raises(LinkError, match="retained"):
                await link.publish("x", b"", qos=0, retain=True)
            with pytest.raises(LinkError, match="larger"):
                await link.publish("x", bytes(5000), qos=0)
            await link.publish("x", b"fits", qos=0)

    run(scenario())


@pytest.mark.parametrize("refusal", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00", b""])
def test_a_broker_that_does_not_speak_mqtt_5_is_spoken_to_in_3_1_1(refusal: bytes) -> None:
    def answer(number: int) -> list[bytes]:
        return [refusal, b""] if number == 1 else [CONNACK_4]

    async def scenario() -> None:
        async with scripted_broker(answer) as url, MqttLink(settings(url, protocol="auto")) as link:
            assert (await next_up(link.events())).limits.protocol == 4

    run(scenario())


def test_amqtt_which_never_answers_mqtt_5_is_spoken_to_in_3_1_1(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def scenario(url: str) -> None:
        async with MqttLink(settings(url, protocol="auto")) as link:
            assert (await next_up(link.events())).limits.protocol == 4

    with start_broker("amqtt", tmp_path_factory.mktemp("amqtt")) as broker:
        run(scenario(broker.url))


def test_a_forced_protocol_that_the_broker_refuses_is_final() -> None:
    async def scenario() -> None:
        async with scripted_broker(lambda _: [b"\x20\x02\x00\x01"]) as url:
            with pytest.raises(LinkError, match='set protocol = "auto"'):
                await MqttLink(settings(url, protocol=5)).__aenter__()

    run(scenario())


def test_pitfall_5_an_exception_in_a_callback_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    lost: list[Exception] = []
    bugs: list[Exception] = []
    logger = cause_logger(lost.append, bugs.append)
    bug, reset = KeyError("ours"), ConnectionResetError("theirs")
    logger.error("Caught exception in on_message: %s", bug)
    logger.error("failed to receive on socket: %s", reset)
    logger.debug("not worth a word")
    assert (lost, bugs) == ([reset], [bug])
    assert "Caught exception in on_message" in caplog.text


def test_pitfall_6_publishing_from_the_reader_does_not_deadlock(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with MqttLink(settings(mosquitto.url, "echo", 5)) as link:
            await link.subscribe("echo/+")
            await link.publish("echo/0", b"")
            async for event in link.events():
                if isinstance(event, Received) and event.topic == "echo/50":
                    return
                if isinstance(event, Received):
                    await link.publish(f"echo/{int(event.topic.split('/')[1]) + 1}", b"")
                assert not isinstance(event, Down)

    run(scenario())


def test_pitfall_13_a_round_trip_at_qos_1_is_not_delayed_by_nagle(mosquitto: Broker) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with (
            MqttLink(settings(mosquitto.url, "ask", 5)) as asker,
            MqttLink(settings(mosquitto.url, "answer", 5)) as answerer,
        ):
            await asker.subscribe("answer")
            await answerer.subscribe("ask")

            async def answer() -> None:
                async for event in answerer.events():
                    if isinstance(event, Received):
                        await answerer.publish("answer", event.payload)

            async with asyncio.TaskGroup() as group:
                task = group.create_task(answer())
                events = asker.events()
                times_s = []
                for _ in range(20):
                    started_s = loop.time()
                    await asker.publish("ask", b"?")
                    await next_received(events)
                    times_s.append(loop.time() - started_s)
                task.cancel()
            assert statistics.median(times_s) < 0.030  # Nagle's algorithm would make it 44 or 88 ms

    run(scenario())


def test_pitfall_15_paho_is_new_enough() -> None:
    major, minor, *_ = importlib.metadata.version("paho-mqtt").split(".")
    assert (int(major), int(minor)) >= (2, 2)
